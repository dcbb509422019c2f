"""Write the tour as one self-contained HTML page without scripts."""

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources

import jax

from nnjax._version import __version__
from nnjax.lecture.idea import PREAMBLE
from nnjax.lecture.section import Section

GENERATOR = '<meta name="generator" content="nnjax lecture">'
NOTES = "Intro to Deep Learning"


def make_page(parts: Mapping[str, Sequence[Section]]) -> str:
    """Return the tour as an HTML page.

    Args:
      parts: the sections of each part, by the title of the part, in order.
    """
    style = (
        resources.files("nnjax.lecture").joinpath("page.css").read_text(encoding="utf-8")
    )
    contents = "".join(_contents(part, sections) for part, sections in parts.items())
    sections = "".join(
        f'<h2 class="part">{escape(part)}</h2>\n' + "".join(map(_section, sections))
        for part, sections in parts.items()
    )
    device = jax.devices()[0].platform.upper()
    versions = f"nnjax {__version__} and JAX {jax.__version__} on a {device}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
{GENERATOR}
<title>Deep learning, idea by idea</title>
<style>
{style}</style>
</head>
<body>
<nav aria-label="Contents"><details open><summary>Contents</summary>
{contents}</details></nav>
<main>
<header>
<h1>Deep learning, idea by idea</h1>
<p>Each section is an idea of the lecture notes “{NOTES}”: what it says, a picture, the code
that runs it, and the numbers it returned. The code is the source of the functions that
computed this page. To run it yourself, start with these lines:</p>
<pre class="code"><code>{_highlight(PREAMBLE)}</code></pre>
</header>
{sections}<footer>Written by <code>nnjax lecture</code> with {versions}.</footer>
</main>
</body>
</html>
"""


def _contents(part: str, sections: Sequence[Section]) -> str:
    links = [
        f'<li><a href="#{idea.name}">{escape(idea.title.partition(":")[0])}</a></li>'
        for idea in (section.idea for section in sections)
    ]
    return f"<p>{escape(part)}</p>\n<ul>\n" + "\n".join(links) + "\n</ul>\n"


def _section(section: Section) -> str:
    idea = section.idea
    topic, _, claim = idea.title.partition(": ")
    pictures = [
        f'<div style="--inches: {width:g}">{svg}</div>' for width, svg in section.pictures
    ]
    notes = [
        f'<p class="note">See <code>{name}</code> <a href="#{other}">above</a>.</p>'
        for name, other in section.elsewhere.items()
    ]
    rows = [
        f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>"
        for name, value in section.numbers.items()
    ]
    line = "\n"
    return f"""<section id="{idea.name}">
<h3><a href="#{idea.name}">{escape(topic)}</a>
<span class="claim">{escape(claim)}</span></h3>
<p>{escape(idea.text)}</p>
<div class="formula">{escape(idea.formula)}</div>
<figure>
<div class="panels" aria-hidden="true">
{line.join(pictures)}
</div>
<figcaption>{escape(idea.caption)}</figcaption>
</figure>
<pre class="code"><code>{_highlight(section.code)}</code></pre>
{line.join(notes)}
<table><tbody>
{line.join(rows)}
</tbody></table>
</section>
"""


def _highlight(code: str) -> str:
    """Return the code as HTML, with a CSS class for each kind of token."""
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import PythonLexer

    return highlight(code, PythonLexer(), HtmlFormatter(nowrap=True)).rstrip()
