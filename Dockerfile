# JupyterLab with the notebooks, on the CPU, for a user without rights:
#   docker build --tag cdt-lite .
#   docker run --rm --publish 127.0.0.1:8888:8888 cdt-lite    (then open the address that it prints)
# The image is named by its tag, since its digest could not be asked for where this was written.
FROM python:3.11-slim-bookworm

RUN useradd --create-home --uid 1000 learner
USER 1000
WORKDIR /home/learner/cdt-lite
COPY --chown=1000:1000 . .

ENV PIP_NO_CACHE_DIR=1
RUN python3 run.py setup

EXPOSE 8888
CMD ["python3", "run.py", "lab", "--ip=0.0.0.0", "--no-browser"]
