"""The report's two forms, from templates: one page of HTML, one of Markdown."""

import base64
import hashlib
import html
import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from coltrain.reproduction.report import charts
from coltrain.reproduction.report.content import Report

_GEOMETRY = {
    "width": charts.WIDTH,
    "height": charts.HEIGHT,
    "left": charts.LEFT,
    "right": charts.RIGHT,
    "top": charts.TOP,
    "bottom": charts.BOTTOM,
}


def html_page(report: Report) -> str:
    """One file: style, script and pictures inside, nothing asked from anywhere.

    Every value is escaped, and the page's own policy lets no script run but the one that is here.
    """
    environment = _environment()
    source = environment.loader.get_source
    style, script = (source(environment, name)[0] for name in ("page.css", "page.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template("page.html.jinja").render(
        report=report,
        geometry=_GEOMETRY,
        style=Markup(style),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
    )


def markdown_twin(report: Report) -> str:
    """The same as Markdown, curves as a line of text, pictures by their page ids."""
    return _environment().get_template("page.md.jinja").render(report=report)


def markdown(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    text = html.escape(" ".join(str(text).split()), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", text)


def fence(text: str) -> str:
    """More backticks in a row than the text has."""
    return "`" * max(3, 1 + max(map(len, re.findall(r"`+", text)), default=0))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=lambda name: name is not None and ".md." not in name,
        undefined=StrictUndefined,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": markdown, "fence": fence}
    return environment
