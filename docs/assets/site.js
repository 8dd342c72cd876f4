// The theme puts wide tables into boxes that scroll; who has no mouse reaches a box that can be focused.
const focusable = () => {
  for (const box of document.querySelectorAll(".md-typeset__scrollwrap:not([tabindex])")) box.tabIndex = 0
}
new MutationObserver(focusable).observe(document.body, {childList: true, subtree: true})
focusable()
