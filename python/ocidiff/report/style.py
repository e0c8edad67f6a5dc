"""Style: the style sheet of a report. It names no other file, and works in the light and in the dark."""

from __future__ import annotations

from typing import Final

LIGHT: Final = ("#a9c8f7", "#f7c493", "#93dacb", "#d0bcf3", "#ecd876", "#f5b4c6", "#b5dc9c", "#cbd0d8")
DARK: Final = ("#2a5599", "#8f5217", "#1b6b5f", "#61459f", "#6f600d", "#8f3457", "#416c27", "#4a5260")
"""Colours of the groups of layers, below dark and below white text. The last is that of all small layers."""


def _variables(colours: tuple[str, ...]) -> str:
    return "".join(f"--g{number}:{colour};" for number, colour in enumerate(colours))


_LIGHT: Final = (
    "color-scheme:light;--bg:#f6f7f9;--card:#fff;--text:#171b21;--soft:#545d6a;--line:#dde1e7;--bar:#dce8fb;"
    "--accent:#1554b5;--bad:#b3202c;--bad-bg:#fdecee;--warn:#8a5200;--warn-bg:#fff3df;--good:#176b3a;--good-bg:#e6f6ec;"
    "--tile:#14181f;--edge:#fff;--box:#e9ecf1;--hatch:rgba(20,24,31,.22);" + _variables(LIGHT)
)
_DARK: Final = (
    "color-scheme:dark;--bg:#101318;--card:#181c23;--text:#e7eaef;--soft:#a3adba;--line:#2c323c;--bar:#223a5e;"
    "--accent:#8ab8ff;--bad:#ff9aa2;--bad-bg:#3a1a1f;--warn:#f5be6b;--warn-bg:#352713;--good:#7fdba4;--good-bg:#132d1f;"
    "--tile:#fff;--edge:#181c23;--box:#232932;--hatch:rgba(255,255,255,.25);" + _variables(DARK)
)

STYLE: Final = f"""
:root{{{_LIGHT}}}
@media(prefers-color-scheme:dark){{:root{{{_DARK}}}}}
*{{box-sizing:border-box}}
body{{margin:0;background:var(--bg);color:var(--text);font:15px/1.5 system-ui,"Segoe UI",Roboto,"Helvetica Neue",sans-serif}}
main{{max-width:1240px;margin:0 auto;padding:28px 20px 48px}}
h1{{font-size:26px;line-height:1.25;margin:0;overflow-wrap:anywhere}}
h1 span{{display:block;font-size:13px;font-weight:600;letter-spacing:.06em;text-transform:uppercase;color:var(--soft)}}
h2{{font-size:18px;line-height:1.3;margin:0 0 4px}}
p{{margin:0 0 12px;color:var(--soft)}}
code,.path{{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:13px}}
.path{{overflow-wrap:anywhere;white-space:pre-wrap;text-align:left}}
.id{{margin:6px 0 0;overflow-wrap:anywhere}}
nav{{margin:14px 0 0}}nav ul{{list-style:none;display:flex;flex-wrap:wrap;gap:6px 18px;padding:0;margin:0}}
a{{color:var(--accent)}}a:focus-visible,summary:focus-visible{{outline:2px solid var(--accent);outline-offset:2px}}
section{{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:18px 20px;margin:16px 0 0}}
.cards{{display:grid;grid-template-columns:repeat(auto-fit,minmax(128px,1fr));gap:12px;margin:18px 0 0;padding:0}}
.cards div{{background:var(--card);border:1px solid var(--line);border-radius:10px;padding:12px 14px}}
.cards dt{{color:var(--soft);font-size:13px}}
.cards dd{{margin:0;font-size:13px;color:var(--soft)}}
.cards dd:first-of-type{{font-size:clamp(19px,2.5vw,25px);white-space:nowrap;line-height:1.3;
font-weight:650;color:var(--text);font-variant-numeric:tabular-nums}}
.cards .bad{{background:var(--bad-bg);border-color:var(--bad)}}.cards .bad dd:first-of-type{{color:var(--bad)}}
.cards .warn{{background:var(--warn-bg);border-color:var(--warn)}}.cards .warn dd:first-of-type{{color:var(--warn)}}
.cards .good{{background:var(--good-bg);border-color:var(--good)}}.cards .good dd:first-of-type{{color:var(--good)}}
table{{border-collapse:collapse;width:100%}}
caption{{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}}
th,td{{text-align:left;vertical-align:top;padding:5px 12px 5px 0;border-bottom:1px solid var(--line)}}
tr:last-child>*{{border-bottom:0}}
thead th{{font-size:12px;font-weight:600;color:var(--soft);white-space:nowrap}}
tbody th{{font-weight:400}}
.n{{text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums}}
.path{{width:99%}}
td.size{{background:linear-gradient(var(--bar),var(--bar)) right top/var(--p,0%) 22px no-repeat content-box;min-width:118px}}
th.n,td.n{{padding-left:10px}}
td:last-child,th:last-child{{padding-right:0}}tr>:last-child:not(.n):not(.path){{padding-left:6px;white-space:nowrap}}
.soft{{color:var(--soft)}}
.tag{{display:inline-block;border-radius:5px;padding:0 7px;font-size:12px;font-weight:600;white-space:nowrap}}
.tag.bad{{color:var(--bad);background:var(--bad-bg)}}.tag.warn{{color:var(--warn);background:var(--warn-bg)}}
.chip{{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:7px;vertical-align:-1px;
border:1px solid rgba(128,128,128,.5)}}
details{{border-bottom:1px solid var(--line);padding:7px 0}}details:last-child{{border-bottom:0;padding-bottom:0}}
summary{{cursor:pointer}}summary b{{font-weight:600;margin:0 6px}}
details table{{margin:4px 0 0}}details table>*>tr>:first-child{{padding-left:18px}}
.key{{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;margin:10px 0 0;padding:0;font-size:13px}}
.pick{{position:absolute;opacity:0}}
.pick+label{{display:inline-block;border:1px solid var(--line);padding:3px 14px;margin:6px 0 12px;cursor:pointer}}
.pick+label:first-of-type{{border-radius:7px 0 0 7px}}.pick+label:last-of-type{{border-radius:0 7px 7px 0;margin-left:-1px}}
.pick:checked+label{{background:var(--accent);border-color:var(--accent);color:var(--card);font-weight:600}}
.pick:focus-visible+label{{outline:2px solid var(--accent);outline-offset:2px}}
.map{{position:relative;height:clamp(430px,52vw,640px);display:none;font-size:12px;line-height:16px;color:var(--tile)}}
#by-directory:checked~#map-directory,#by-layer:checked~#map-layer{{display:block}}
.map div{{position:absolute;overflow:hidden}}
.map .in{{inset:18px 1px 1px}}
.box{{background:var(--box);border:1px solid var(--edge);border-radius:4px;color:var(--text)}}
.box>b{{display:block;font-weight:600;padding:0 5px;height:18px;line-height:18px;white-space:nowrap;overflow:hidden;
text-overflow:ellipsis}}
.tile{{border:1px solid var(--edge);border-radius:3px;color:var(--tile);container-type:size}}
.tile b,.tile i{{display:block;padding:0 4px;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;font-style:normal;
font-weight:400}}
.tile b{{font-weight:600}}
.tile:hover{{filter:brightness(1.07)}}
@container (max-width:34px) or (max-height:15px){{.tile b{{display:none}}}}
@container (max-width:44px) or (max-height:31px){{.tile i{{display:none}}}}
{"".join(f".g{number}{{background-color:var(--g{number})}}" for number in range(len(LIGHT)))}
.waste{{background-image:repeating-linear-gradient(135deg,var(--hatch) 0 2px,transparent 2px 7px)}}
footer{{margin:18px 0 0;font-size:13px;color:var(--soft)}}
@media(max-width:620px){{main{{padding:18px 12px 32px}}section{{padding:14px 12px}}h1{{font-size:22px}}
.cards{{grid-template-columns:1fr 1fr}}.cards div:last-child{{grid-column:1/-1}}td.size{{min-width:74px}}
.cards div{{padding:10px 12px}}.cards dd:first-of-type{{font-size:21px}}
th,td{{padding-right:6px}}th.n,td.n{{padding-left:4px}}.wide{{display:none}}}}
@media print{{.map{{display:block!important;break-inside:avoid;margin-bottom:12px}}.pick+label,nav{{display:none}}
*{{print-color-adjust:exact;-webkit-print-color-adjust:exact}}}}
"""
