"""x"""
from cdt_lite.config import Config
def guide(config: Config, alts: dict[str, str], measured: bool) -> str:
    return "\n".join(f"{k}: {v}" for k,v in alts.items())
