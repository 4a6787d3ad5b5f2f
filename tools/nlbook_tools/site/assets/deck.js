// The deck: text that is too long for its slide is set smaller, figures switch among their states, T turns it dark.
(async function () {
  "use strict";
  const HEIGHT = 720, LEAST = 0.5, MOST = 1.24, root = document.documentElement;
  const slides = [...document.querySelectorAll(".slides > section > section")];

  // The fonts are in the file, and yet they load in their own time: what is measured before is measured in other letters.
  await Promise.all([...document.fonts].map((f) => f.load().catch(() => null)));

  // Before reveal.js takes over, every slide is laid out once and made to fit its 1280 x 720.
  root.classList.add("measuring");
  for (const s of slides) {
    const body = s.querySelector(".body"), size = parseFloat(getComputedStyle(body).fontSize);
    const pres = [...body.querySelectorAll("pre, .box, table, .task")].map((e) => [e, parseFloat(getComputedStyle(e).fontSize)]);
    const images = [...body.querySelectorAll("img")].map((e) => [e, parseFloat(getComputedStyle(e).maxHeight)]);
    let scale = s.matches(".picture, .opening") ? 1 : MOST; // few words are set larger, many smaller
    const live = body.querySelector("[data-nlbook-live]");
    const figure = s.matches(".picture"); // there the picture gives way first, its words only when it is small already
    let room = 1;
    const tooHigh = () => s.scrollHeight > HEIGHT - 14;
    const narrow = (e, room, wide) => { // one formula or one listing that is too wide is set smaller by itself
      const px = parseFloat(getComputedStyle(e).fontSize), ratio = room() / wide();
      if (ratio < 0.66 && e.tagName === "PRE") e.style.whiteSpace = "pre-wrap"; // smaller cannot be read: it wraps
      else if (ratio < 1) e.style.fontSize = `${Math.floor(px * Math.max(ratio, 0.45) * 10) / 10}px`;
    };
    const fit = () => {
      for (const e of body.querySelectorAll("pre")) narrow(e, () => e.clientWidth - 40, () => e.scrollWidth - 40);
      for (const e of body.querySelectorAll(".display > math")) {
        e.style.fontSize = "";
        narrow(e, () => e.parentElement.clientWidth, () => e.scrollWidth);
      }
    };
    const set = () => {
      body.style.fontSize = `${size * scale}px`;
      for (const [e, px] of pres) e.style.fontSize = `${px * scale}px`;
      for (const [e, px] of images) e.style.maxHeight = `${px * (figure ? room : 0.25 + 0.75 * scale)}px`;
      if (live) live.style.zoom = scale;
      fit();
    };
    live?.addEventListener("keydown", (e) => e.stopPropagation()); // what is typed there is the picture's
    set();
    while (tooHigh() && scale > LEAST) {
      if (figure && room > 0.55) room -= 0.03; else scale -= 0.04;
      set();
    }
    const right = s.getBoundingClientRect().right - 30;
    const wide = [...body.querySelectorAll("math, pre, table, img, p, li")].filter((e) => e.getBoundingClientRect().right > right || e.scrollWidth > e.clientWidth + 2 && e.tagName === "PRE");
    const tooMuch = () => tooHigh() || wide.length > 0;
    s.dataset.scale = scale.toFixed(2);
    s.dataset.fits = String(!tooMuch());
  }
  root.classList.remove("measuring");

  for (const f of document.querySelectorAll(".frames")) {
    const images = [...f.querySelectorAll("img")], buttons = [...f.querySelectorAll("button")];
    buttons.forEach((b, i) => {
      b.onclick = () => { images.forEach((m, j) => { m.hidden = i !== j; }); buttons.forEach((c, j) => c.setAttribute("aria-pressed", i === j)); };
      b.onkeydown = (e) => { if (e.key === " " || e.key === "Enter") e.stopPropagation(); }; // the button's, not the deck's
    });
  }
  addEventListener("keydown", (e) => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;
    if (/^[1-9]$/.test(e.key)) window.Reveal.getCurrentSlide()?.querySelectorAll(".frames button")[e.key - 1]?.click();
    if (e.key === "t" || e.key === "T") {
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
    }
  });

  window.Reveal.initialize({
    width: 1280, height: HEIGHT, margin: 0, minScale: 0.1, maxScale: 4, center: false, hash: true, history: false,
    slideNumber: "c/t", controls: false, transition: "none", backgroundTransition: "none", navigationMode: "linear",
    pdfMaxPagesPerSlide: 1, pdfSeparateFragments: false, plugins: [window.RevealNotes],
  });
})();
