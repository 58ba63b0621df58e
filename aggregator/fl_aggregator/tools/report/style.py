"""The style sheet of a report: light, dark and in print."""

from __future__ import annotations

from typing import Final

from fl_aggregator.tools.report.markup import Markup

STYLE: Final = Markup("""
:root { color-scheme: light dark; --page: #f6f7f9; --surface: #ffffff; --ink: #14171c; --muted: #5a626e;
  --grid: #dde1e7; --good: #1d7a46; --bad: #b3261e; --series-1: #2a6fdb; --series-2: #d9622b; --series-3: #14966b;
  --series-4: #8a5cd1; --series-5: #c2820a; --series-6: #c8417f; --series-7: #1588a3; --series-8: #6d7684; }
@media (prefers-color-scheme: dark) { :root { --page: #0e1116; --surface: #171b22; --ink: #e8ebf0; --muted: #9aa4b2;
  --grid: #2e3540; --good: #5ccf8f; --bad: #ff8a80; --series-1: #6aa3ff; --series-2: #f0905f; --series-3: #3fc195;
  --series-4: #b393ee; --series-5: #dfa93f; --series-6: #ee82b0; --series-7: #4dbbd5; --series-8: #98a2b0; } }
@media print { :root { color-scheme: light; --page: #fff; --surface: #fff; --ink: #000; --muted: #444; --grid: #ccc;
  --good: #1d7a46; --bad: #b3261e; --series-1: #2a6fdb; --series-2: #d9622b; --series-3: #14966b; --series-4: #8a5cd1;
  --series-5: #c2820a; --series-6: #c8417f; --series-7: #1588a3; --series-8: #6d7684; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI",
  Roboto, "Helvetica Neue", Arial, sans-serif; }
main, header, footer { max-width: 1080px; margin: 0 auto; padding: 0 20px; }
header { padding-top: 36px; }
h1 { font-size: 27px; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { font-size: 17px; margin: 0 0 4px; }
section { background: var(--surface); border: 1px solid var(--grid); border-radius: 12px; padding: 18px 20px;
  margin: 18px 0; break-inside: avoid-page; }
section.long { break-inside: auto; }
p { margin: 0 0 12px; max-width: 76ch; }
.sub, .note, figcaption, caption { color: var(--muted); }
.note { font-size: 13.5px; }
.sub { margin: 0; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(138px, 1fr)); gap: 10px; margin: 20px 0 0; }
.tile { background: var(--surface); border: 1px solid var(--grid); border-radius: 12px; padding: 11px 15px; }
.tile b { display: block; font-size: 22px; font-weight: 650; letter-spacing: -0.01em; line-height: 1.25; }
.tile span { color: var(--muted); font-size: 13px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 8px 22px; }
svg { display: block; width: 100%; height: auto; margin: 6px 0 2px; overflow: visible; }
svg text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif !important; }
.scroll { overflow: auto; max-height: 560px; margin-top: 8px; background:
  linear-gradient(var(--surface), var(--surface)) bottom / 100% 14px no-repeat local,
  linear-gradient(transparent, var(--grid)) bottom / 100% 14px no-repeat scroll; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--series-1); outline-offset: 2px; }
table { border-collapse: collapse; font-size: 13.5px; font-variant-numeric: tabular-nums; width: 100%; }
caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--grid); vertical-align: top; }
th { color: var(--muted); font-weight: 600; position: sticky; top: 0; background: var(--surface); white-space: nowrap; }
td { white-space: nowrap; }
td.w, th.w { text-align: left; }
td.w { white-space: normal; overflow-wrap: anywhere; min-width: 6.5em; }
tbody tr:last-child td { border-bottom: 0; }
.good { color: var(--good); white-space: nowrap; } .bad { color: var(--bad); }
.meter { display: flex; align-items: center; gap: 12px; flex-wrap: wrap; margin: 2px 0 12px;
  font-variant-numeric: tabular-nums; }
.track { flex: 1 1 220px; max-width: 480px; height: 12px; border: 1px solid var(--muted); border-radius: 7px;
  overflow: hidden; }
.track span { display: block; height: 100%; background: var(--series-1); print-color-adjust: exact; }
.key { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 7px; vertical-align: -1px; }
.matrix table { width: auto; font-size: 12.5px; }
.matrix td, .matrix th { text-align: center; padding: 4px; min-width: 34px; border: 1px solid var(--surface); }
.matrix th { position: static; }
.matrix th[scope=row] { text-align: right; padding-right: 10px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); gap: 18px;
  margin: 18px 0;
  align-items: stretch; }
.pair > section { margin: 0; min-width: 0; }
.settings { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(290px, 100%), 1fr)); gap: 0 26px;
  margin: 8px 0 0; font-size: 13.5px; font-variant-numeric: tabular-nums; }
.settings div { display: flex; justify-content: space-between; gap: 12px; padding: 4px 0;
  border-bottom: 1px solid var(--grid); }
.settings dt { color: var(--muted); } .settings dd { margin: 0; text-align: right; overflow-wrap: anywhere; }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--muted); font-size: 13.5px; }
footer { color: var(--muted); font-size: 12.5px; padding-top: 14px; padding-bottom: 40px; }
@media (max-width: 560px) { main, header, footer { padding-left: 12px; padding-right: 12px; }
  section { padding: 14px 12px; } }
@media print { body { font-size: 11px; } .scroll { max-height: none; overflow: visible; } th { position: static; }
  section { border: 0; padding: 6px 0; } header { padding-top: 0; }
  main, header, footer { max-width: none; padding: 0; }
  summary { display: none; } table { font-size: 9.5px; } }
""")
