"""`/`, which says where everything is, and `/docs/`: a page that shows `/openapi.json`, made of files that come with the package `flask-swagger-ui`.

The package's own template has a script inside the page; this one has none, so the page may be forbidden to run any.
"""

from __future__ import annotations

from importlib.resources import files

from flask import Blueprint, Response, jsonify, send_from_directory

from webapp import VERSION
from webapp.access.model import Openness
from webapp.api import system_examples as examples
from webapp.api.answers import IndexAnswer
from webapp.api.needs import needs
from webapp.api.openapi import documented

index_bp = Blueprint("index", __name__)
bp = Blueprint("docs", __name__, url_prefix="/docs")

#: What the page may load and run: only files that come with it.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:;"
    " connect-src 'self'; font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_FILES = str(files("flask_swagger_ui") / "dist")

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="UTF-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>DJPS</title>
  <link rel="stylesheet" href="/docs/index.css">
  <link rel="stylesheet" href="/docs/swagger-ui.css">
  <link rel="icon" type="image/png" href="/docs/favicon-32x32.png" sizes="32x32">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/swagger-ui-standalone-preset.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
"""

_START = """window.ui = SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  layout: "StandaloneLayout",
  presets: [SwaggerUIBundle.presets.apis, SwaggerUIStandalonePreset],
  plugins: [SwaggerUIBundle.plugins.DownloadUrl],
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null,
});
"""


@index_bp.get("/")
@documented({200: IndexAnswer}, need=Openness.PUBLIC, examples=examples.INDEX)
def index() -> Response:
    """What answers here, and where to read on."""
    return jsonify(IndexAnswer(version=VERSION).model_dump())


@bp.get("/")
@bp.get("/index.html")
@needs(Openness.PUBLIC)
def page() -> Response:
    """The page."""
    return Response(_PAGE, mimetype="text/html")


@bp.get("/start.js")
@needs(Openness.PUBLIC)
def start() -> Response:
    """What the page runs first."""
    return Response(_START, mimetype="text/javascript")


@bp.get("/<path:name>")
@needs(Openness.PUBLIC)
def file(name: str) -> Response:
    """A file that the page loads; 404 for any other."""
    return send_from_directory(_FILES, name)


@bp.after_request
def _only_what_comes_with_it(response: Response) -> Response:
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    return response
