"""Make help.json.xz and testament.json.xz, real text in several languages, and bring checksums.txt up to date.

    apt-get download gnome-user-docs sword-text-web sword-text-sparv
    for f in *.deb; do dpkg-deb -x $f FOLDER/${f%%_*}; done
    python data/make_texts.py FOLDER          half a minute; the standard library alone

Each file is {language: {page: text}} as JSON, compressed. A help page is its titles and paragraphs, a line each, from
Mallard; a page of the testament is a chapter, verse after verse, from SWORD's zText, without notes and headings.
"""

from __future__ import annotations

import json
import lzma
import re
import struct
import sys
import xml.etree.ElementTree as ET
import zlib
from pathlib import Path

from make_talker import listed

HERE = Path(__file__).parent
MODULES = {"en": "sword-text-web/{}/engWEB2015eb", "es": "sword-text-sparv/{}/spaRV1909eb"}
LEFT_OUT = {"info", "credit", "license"}


def lines(element: ET.Element) -> list[str]:
    """Titles and paragraphs of a Mallard page, those inside lists too."""
    tag = element.tag.rsplit("}", 1)[-1] if isinstance(element.tag, str) else ""
    if tag in ("p", "title"):
        text = re.sub(r"\s+", " ", "".join(element.itertext())).strip()
        return [text] if text else []
    return [] if tag in LEFT_OUT else [line for child in element for line in lines(child)]


def help_pages(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.glob("*.page") if p.name != "index.page")
    return {p.stem: "\n".join(lines(ET.parse(p).getroot())) for p in files}


def chapters(folder: Path) -> dict[str, str]:
    """Book.chapter -> its verses, of a SWORD zText module's New Testament."""
    index, places, packed = ((folder / f"nt.bz{end}").read_bytes() for end in "svz")
    blocks = [zlib.decompress(packed[at : at + n]) for at, n, _ in struct.iter_unpack("<III", index)]
    out: dict[str, list[str]] = {}
    for block, at, n in struct.iter_unpack("<IIH", places):
        raw = blocks[block][at : at + n].decode()
        begins = re.search(r'<chapter [^>]*sID="([^"]+)"', raw)
        if begins:
            out[begins[1]] = []
        raw = re.sub(r"<note.*?</note>|<title.*?</title>|<div[^>]*/?>|<l[bg]?[ /][^>]*>|<p>", " ", raw, flags=re.S)
        text = re.sub(r"\s+([,.;:?!’”])", r"\1", re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", raw))).strip()
        if text and out:
            out[next(reversed(out))].append(text)
    return {name: " ".join(verses) for name, verses in out.items()}


def write(name: str, texts: dict[str, dict[str, str]]) -> None:
    for language, pages in texts.items():
        print(f"{name} {language}: {len(pages)} pages, {sum(len(t.encode()) for t in pages.values()):,} bytes")
    raw = json.dumps(texts, ensure_ascii=False, indent=0).encode()
    (HERE / name).write_bytes(lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME))
    listed(HERE / name)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    manuals = folder / "gnome-user-docs/usr/share/help"
    folders = {"en": "C", "de": "de", "fr": "fr", "es": "es"}
    write("help.json.xz", {x: help_pages(manuals / at / "gnome-help") for x, at in folders.items()})
    modules = "usr/share/sword/modules/texts/ztext"
    write("testament.json.xz", {x: chapters(folder / at.format(modules)) for x, at in MODULES.items()})
