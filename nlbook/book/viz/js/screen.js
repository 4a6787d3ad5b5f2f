// The picture of a Picture: an <img> with alt text, the state string with a Copy button, and the long description.
// Plain DOM; no library, no import, no network. A new image is decoded before it is shown, so nothing flickers.
function render({ model, el }) {
  const make = (tag, cls, parent) => { const e = document.createElement(tag); if (cls) e.className = cls; parent.append(e); return e; };
  const box = make("figure", "nlbook-screen", el);
  const img = make("img", "", box);
  const caption = make("figcaption", "nlbook-caption", box);
  const stateBox = make("span", "nlbook-state", caption);
  const code = make("code", "", stateBox);
  const copy = make("button", "", stateBox);
  copy.type = "button"; copy.textContent = "Copy state";
  const fold = make("details", "", caption);
  make("summary", "", fold).textContent = "Describe the picture";
  const text = make("div", "nlbook-describe", fold);
  let url = "", turn = 0;

  async function showImage() {
    const bytes = model.get("png");
    img.hidden = !bytes.byteLength;
    if (img.hidden) return;
    const mine = ++turn, next = URL.createObjectURL(new Blob([bytes], { type: "image/png" }));
    const probe = new Image();
    probe.src = next;
    await probe.decode().catch(() => {});
    if (mine !== turn) { URL.revokeObjectURL(next); return; } // a newer picture came meanwhile
    img.src = next;
    if (url) URL.revokeObjectURL(url);
    url = next;
  }
  function showText() {
    img.alt = model.get("alt");
    img.style.width = model.get("width") + "px";
    code.textContent = `viz.load("${model.get("state")}")`;
    stateBox.hidden = !model.get("show_state");
    text.textContent = model.get("description");
  }
  copy.onclick = async () => {
    try {
      await navigator.clipboard.writeText(model.get("state"));
      copy.textContent = "Copied";
    } catch { // no permission: select it, and the reader's own Ctrl+C copies it
      getSelection().selectAllChildren(code);
      copy.textContent = "Press Ctrl+C";
    }
    setTimeout(() => { copy.textContent = "Copy state"; }, 1500);
  };
  const names = ["alt", "width", "state", "show_state", "description"];
  model.on("change:png", showImage);
  for (const n of names) model.on("change:" + n, showText);
  showText();
  showImage();
  return () => {
    model.off("change:png", showImage);
    for (const n of names) model.off("change:" + n, showText);
    if (url) URL.revokeObjectURL(url);
  };
}
export default { render };
