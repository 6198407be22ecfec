"""The template of the route that served a request: ``http.route``.

FastAPI and newer versions of Starlette leave the route in the scope; older
ones leave the endpoint.  Behind a mount, what the path began with is looked up
in the mounts, so that their parameters stay parameters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from starlette.routing import Mount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope


def route_template(scope: Scope) -> str | None:
    """Return the template of the route that served the request, None where none did.

    Args:
        scope: the request's scope after the application has seen it.
    """
    path = _last_part(scope)
    if path is None:
        return None
    prefix = scope.get("root_path", "")[len(scope.get("app_root_path", "")) :]
    if not prefix or "app_root_path" not in scope:
        return path
    return _mounts(getattr(scope.get("router"), "routes", ()), prefix) + path


def _last_part(scope: Scope) -> str | None:
    """Return the template below all mounts."""
    # Of a router that was included: the route itself does not know the prefix.
    within = scope.get("fastapi")
    if type(within) is dict:
        found = getattr(within.get("effective_route_context"), "path_format", None)
        if found:
            return str(found)
    route = scope.get("route")
    if route is None:
        endpoint = scope.get("endpoint")
        if endpoint is None:
            return None
        route = _route_of(endpoint, scope, getattr(scope.get("router"), "routes", ()))
    if isinstance(route, Mount):
        return "/{path}"
    path = getattr(route, "path_format", None)
    return path if isinstance(path, str) else None


def _route_of(endpoint: object, scope: Scope, routes: Iterable[Any]) -> object:
    """Return the route of an endpoint; of several, the one that has the request's method."""
    found = None
    for route in routes:
        if isinstance(route, Mount):
            inner = route if route.app is endpoint else _route_of(endpoint, scope, route.routes)
            found = found or inner
        elif getattr(route, "endpoint", None) is endpoint and _fits(route, scope):
            return route
    return found


def _fits(route: Any, scope: Scope) -> bool:
    """Whether the parameters are those of the route, and so is the method."""
    methods = getattr(route, "methods", None)
    if methods and scope.get("method") not in methods:
        return False
    names = set(getattr(route, "param_convertors", ()))
    return names <= set(scope.get("path_params", ()))


def _mounts(routes: Iterable[Any], prefix: str) -> str:
    """Return the template of what ``prefix`` came through; itself where it is not found."""
    for route in routes:
        if not isinstance(route, Mount):
            continue
        match = route.path_regex.match(prefix + "/")
        if match is None:
            continue
        rest = match.group("path").rstrip("/")
        if not rest:
            return route.path
        return route.path + _mounts(route.routes, "/" + rest)
    return prefix
