"""The route's template, from what older versions of Starlette leave in the scope."""

from __future__ import annotations

import pytest
from fapilog_fastapi.routes import route_template
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router


async def page(request):
    return PlainTextResponse("page")


async def other(request):
    return PlainTextResponse("other")


files = PlainTextResponse("files")
ROUTER = Router(
    [
        Route("/pages", page, methods=["POST"]),
        Route("/pages/{name}", page, methods=["GET"]),
        Mount("/files", files),
        Mount("/areas/{area}", routes=[Route("/others/{name}", other, methods=["GET"])]),
    ]
)


def scope(endpoint, method="GET", *, root="", **parameters):
    mounted = {"app_root_path": "", "root_path": root} if root else {}
    return {
        "type": "http",
        "method": method,
        "router": ROUTER,
        "endpoint": endpoint,
        "path_params": parameters,
        **mounted,
    }


@pytest.mark.parametrize(
    ("given", "template"),
    [
        (scope(page, "POST"), "/pages"),
        (scope(page, name="a"), "/pages/{name}"),
        (scope(other, root="/areas/7", area="7", name="b"), "/areas/{area}/others/{name}"),
        (scope(other, root="/unknown", area="7", name="b"), "/unknown/others/{name}"),
        (scope(files, root="/files"), "/files/{path}"),
        (scope(print), None),
        ({"type": "http"}, None),
    ],
)
def test_the_template_is_found_by_the_endpoint(given, template):
    assert route_template(given) == template
