"""The style sheet of the demo's page: five columns on a screen, three and two on a phone."""

STYLE = """
:root { color-scheme: light dark; --ink: #1d2129; --soft: #5d6673; --line: #d9dde3; --ground: #fbfbfa; --mark: #2f6fb3 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #9aa3ae; --line: #343a43; --ground: #16191e; --mark: #7db4ea }
}
* { box-sizing: border-box }
body { max-width: 47rem; margin: 0 auto; padding: 2rem 1rem 4rem; background: var(--ground); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .4rem }
h3 { font-size: 1.05rem; margin: 0 0 .4rem }
p { margin: .5rem 0; max-width: 46rem }
small, figcaption, .prompt, dd, .meanings { color: var(--soft); font-weight: 400 }
dl { margin: 0 }
dt { font-weight: 600 }
dd { margin: 0 }
figure { margin: 0; min-width: 0 }
figcaption { font-size: .8rem; line-height: 1.25; margin-bottom: .25rem }
img { display: block; width: 100%; max-width: 128px; height: auto; border-radius: 5px }
figure div { display: grid; gap: .35rem }
.legend { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .6rem 1rem; font-size: .85rem;
  line-height: 1.35; margin: .8rem 0 0 }
.row { border-top: 1px solid var(--line); padding: 1rem 0; margin-top: 1rem }
.columns { display: grid; grid-template-columns: repeat(5, minmax(0, 128px)); gap: .6rem; align-items: end }
.prompt { margin: .5rem 0 0; font-size: .9rem; font-style: italic }
.live { color: var(--mark); font-size: .75rem; font-weight: 600; border: 1px solid; border-radius: 4px;
  padding: 0 .3rem; white-space: nowrap }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(21rem, 100%), 1fr)); gap: 1.6rem 1.2rem;
  margin-top: 1rem }
.card .columns { grid-template-columns: repeat(3, minmax(0, 128px)) }
.figures .cards { grid-template-columns: repeat(auto-fit, minmax(min(17rem, 100%), 1fr)) }
.figures .card { border: 1px solid var(--line); border-radius: 8px; padding: .9rem 1rem }
.figures .card dl div { margin-top: .45rem; line-height: 1.35 }
.figures b { color: var(--ink) }
.meanings { font-size: .9rem; padding-left: 1.1rem }
.times { display: flex; flex-wrap: wrap; gap: .8rem 2rem; margin-top: 1.2rem; font-size: .9rem }
@media (max-width: 599px) {
  .row .columns { grid-template-columns: repeat(3, minmax(0, 128px)) }
}
@media (min-width: 1000px) {
  body { max-width: 60rem }
  .row { display: grid; grid-template-columns: 12rem 1fr; column-gap: 1rem }
  .row h3 { grid-row: 1 / 3 }
}
@media (min-width: 1640px) {
  body { max-width: 101rem }
  .several .cards { grid-template-columns: repeat(auto-fit, minmax(27rem, 1fr)) }
  .row .columns { grid-template-columns: repeat(5, minmax(0, 262px)) }
  .row figure div { grid-template-columns: repeat(2, minmax(0, 128px)) }
}
"""
