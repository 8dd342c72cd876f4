"""The look of all pages of ours: colours for light and dark, CSS for any width, and the colours of drawings.

In: SVG that was drawn in the light colours. Out: the same with the page's own, and the style sheet.
"""

import re

SERIES = ("#0e36c9", "#d96a12", "#159a71", "#ba75c8", "#78330d", "#491266")
"""Of lines and points: told apart with any kind of colour vision, and 3:1 or more against the page."""
INK, SOFT, LINE, PAPER = "#1c1c1f", "#57575a", "#c9c9c4", "#fafaf8"
"""Of text, of what is read second, of rules and grids, of the page."""
LIGHT = {
    **{
        "ink": INK,
        "soft": SOFT,
        "line": LINE,
        "paper": PAPER,
        "panel": "#efefeb",
        "warn": "#a01c1c",
        "note": "#7a4108",
    },
    **{"link": "#0b4f9e", "seen": "#5d3a8a"},
    **{f"c{number}": colour for number, colour in enumerate(SERIES)},
}
DARK = {
    **{"ink": "#e6e6e3", "soft": "#a9a9a6", "line": "#4a4a4e", "paper": "#161618", "panel": "#242427"},
    **{"warn": "#ff9c92", "note": "#e0a35c", "link": "#8fbcf5", "seen": "#c3a6ee"},
    **dict(zip(("c0", "c1", "c2"), ("#98b0f7", "#ed6122", "#1ae882"), strict=True)),
    **dict(zip(("c3", "c4", "c5"), ("#c67e97", "#ffe826", "#a35dfe"), strict=True)),
}
_NAMES = {colour: name for name, colour in LIGHT.items()} | {"#000000": "ink", "#ffffff": "paper"}
_COLOUR = re.compile(r"#[0-9a-f]{6}\b")


def themed(drawing: str) -> str:
    """Return SVG whose styles name the colours of `LIGHT`, black and white as those of a page, light or dark."""
    return _COLOUR.sub(lambda match: of_page(match[0]), drawing)


def of_page(colour: str) -> str:
    """Return what CSS calls a colour of `LIGHT`; another as it is."""
    return f"var(--{_NAMES[colour]})" if colour in _NAMES else colour


def _variables(colours: dict[str, str]) -> str:
    return ":root{" + "".join(f"--{name}:{colour};" for name, colour in colours.items()) + "}"


STYLE = (
    f"""
:root{{color-scheme:light dark}}{_variables(LIGHT)}
@media(prefers-color-scheme:dark){{{_variables(DARK)}}}
"""
    + """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:1180px;padding:0 1rem}
body{color:var(--ink);background:var(--paper);overflow-wrap:anywhere}
h1{font-size:1.45rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{max-width:76ch}
h3{font-size:.9rem;font-weight:600;color:var(--soft);margin:.9rem 0 .4rem}
a{color:var(--link);text-underline-offset:2px}a:visited{color:var(--seen)}
:focus-visible{outline:2px solid var(--link);outline-offset:2px}
.facts,.note{color:var(--soft)}p.facts{max-width:none}.verdict{font-size:1.1rem}
.table{overflow-x:auto}table{border-collapse:collapse;margin:.6rem 0;font-size:14px;overflow-wrap:normal}
th,td{padding:.35rem .9rem .35rem 0;text-align:left;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:600}thead th{border-bottom:2px solid var(--line);vertical-align:bottom}
.numbers th:not(:first-child),.numbers td:not(:first-child){text-align:right}
td small,th small{font-size:13px;font-weight:400;color:var(--soft);white-space:nowrap;display:block;line-height:1.3}
td.noise{color:var(--soft)}td.real{font-weight:600}
.images{display:grid;grid-template-columns:repeat(auto-fill,minmax(84px,1fr));gap:10px;margin-bottom:.6rem}
.beside{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:10px 2rem}
.jumps a{display:inline-block;margin:.2rem .9rem .2rem 0}
.side{display:flex;flex-wrap:wrap;gap:0 3rem}.side>div{max-width:100%}
.columns{columns:2 26rem;column-gap:2.5rem}.columns>div{break-inside:avoid}
.figures{display:flex;flex-wrap:wrap;gap:1rem}.figures svg{width:330px;max-width:100%;height:auto}
.legend span{margin-right:1rem;display:inline-block}.legend b{font-weight:400}
svg text{fill:currentColor}
figure{margin:0}img{width:100%;aspect-ratio:1;border-radius:4px;display:block;background:var(--panel)}
figcaption{font-size:12px;line-height:1.3;margin-top:3px}
figcaption b{font-weight:400;color:var(--soft)}figcaption i{font-style:normal;color:var(--note)}
.warning,td small.warning,th small.warning{color:var(--warn);font-weight:600}
dt{font-weight:600}dd{margin:0 0 .6rem;max-width:76ch}
details{margin:.6rem 0}summary{cursor:pointer}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--panel);padding:.6rem;font-size:13px;border-radius:4px}
@media(max-width:560px){body{margin:1rem auto}table{font-size:13px}th,td{padding-right:.6rem}}
"""
)
