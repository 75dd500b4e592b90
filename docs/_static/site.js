// On paper every page is light.
addEventListener("beforeprint", () => {
  const { dataset } = document.documentElement;
  dataset.onScreen = dataset.theme;
  dataset.theme = "light";
});
addEventListener("afterprint", () => {
  const { dataset } = document.documentElement;
  dataset.theme = dataset.onScreen;
});

// What the theme leaves without a name or a landmark, or names otherwise than it shows.
addEventListener("DOMContentLoaded", () => {
  for (const fold of document.querySelectorAll(".bd-sidebar summary")) {
    fold.setAttribute("aria-label", "Pages below this one");
  }
  for (const button of document.querySelectorAll("button.search-button-field")) {
    button.removeAttribute("aria-label");
  }
  const home = document.querySelector(".navbar-brand")?.parentElement;
  home?.setAttribute("role", "navigation");
  home?.setAttribute("aria-label", "Home");
});
