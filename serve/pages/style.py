"""What only the browser's pages need of CSS, beside the style that all pages of ours share.

Colours are mixed from the page's own, so that they hold in light and dark alike.
"""

STYLE = """
nav{margin:.3rem 0 1rem}nav a,.pager a{margin-right:1rem}
form.search{display:flex;flex-wrap:wrap;gap:.6rem 1rem;align-items:end;margin:1rem 0}
form.search label{display:grid;gap:.15rem;font-size:13px}
input,select,button{font:inherit;color:inherit;background:color-mix(in srgb,currentColor 6%,transparent);
border:1px solid color-mix(in srgb,currentColor 45%,transparent);border-radius:4px;
padding:.3rem .5rem;min-height:2.2rem;max-width:100%;box-sizing:border-box}
select option{color:#1c1c1f;background:#fff}::placeholder{color:inherit;opacity:.7}
th input[type=checkbox]{min-height:1.2rem;min-width:1.2rem;margin:0 .4rem 0 0}
input.number{width:7.5rem}input.wide{width:15rem}button{cursor:pointer;padding:.3rem .9rem}
.wall{display:grid;grid-template-columns:repeat(auto-fill,minmax(124px,1fr));gap:12px}
.strip{display:grid;grid-template-columns:repeat(auto-fill,minmax(84px,1fr));gap:10px}
.wall a,.strip a{color:inherit;text-decoration:none}
.strip .this figure{outline:2px solid #4c78a8;outline-offset:3px;border-radius:4px}
.wall figcaption,.strip figcaption{display:-webkit-box;-webkit-line-clamp:4;-webkit-box-orient:vertical;overflow:hidden}
.lost{aspect-ratio:1;border-radius:4px;display:grid;place-items:center;text-align:center;font-size:12px;padding:4px;
overflow:hidden;box-sizing:border-box;border:1px dashed color-mix(in srgb,currentColor 45%,transparent)}
.one{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,340px),1fr));gap:0 1.5rem;align-items:start}
.one>figure{max-width:512px}.prompt{font-size:1.1rem;margin:.2rem 0 .8rem}
pre{white-space:pre-wrap;overflow-wrap:anywhere;padding:.6rem .8rem;border-radius:4px;
background:color-mix(in srgb,currentColor 7%,transparent)}
.classes{columns:15rem;padding:0;list-style:none}.classes li{break-inside:avoid}
.curves{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,400px),1fr));gap:1.2rem 2rem}
.curves figcaption{font-size:14px;font-weight:600;color:inherit;margin:0 0 .2rem}
svg.curve{width:100%;height:auto;display:block;font-size:12px;fill:currentColor;overflow:visible}
svg.curve .grid{stroke:currentColor;stroke-opacity:.18}.line{fill:none;stroke-width:1.6;stroke-linejoin:round}
.band{stroke:none}
.key{display:flex;flex-wrap:wrap;gap:.3rem 1.2rem;padding:0;list-style:none}
.key svg{width:2rem;height:.8rem;vertical-align:middle;margin-right:.4rem}
.c0{color:#3b76b0}.c1{color:#c8611a}.c2{color:#1f8a70}.c3{color:#b0499b}.c4{color:#8a7a12}.c5{color:#6a6a6e}
.line{stroke:currentColor}.band,.mark{fill:currentColor}
@media (prefers-color-scheme:dark){
.c0{color:#74aee8}.c1{color:#f0955a}.c2{color:#4fc3a1}.c3{color:#e08fd0}.c4{color:#d3c04a}.c5{color:#b5b5ba}}
td.when{white-space:nowrap}.pick{display:inline-flex;align-items:start}
@media (max-width:600px){body{margin:1rem auto}td.when{display:none}
.wall{grid-template-columns:repeat(auto-fill,minmax(98px,1fr));gap:8px}
form.search label{flex:1 1 40%}input.number,input.wide,select{width:100%}}
"""
