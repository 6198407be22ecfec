"""Determines the template of a request's route, such as ``/orders/{id}``, for ``http.route``.

FastAPI and newer versions of Starlette store the route in the ASGI scope; older versions of
Starlette store only the endpoint.  If the route belongs to a mounted application, the
result begins with the template of the mount, such as ``/shops/{shop}``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from starlette.routing import Host, Mount

if TYPE_CHECKING:
    from collections.abc import Iterable

    from starlette.types import Scope

#: Replaces the part of a path whose route template is unknown.
ANY: Final = "/{path}"
#: The maximum number of middleware layers that are searched for an application with routes.
_MAX_LAYERS: Final = 100


def route_template(scope: Scope) -> str | None:
    """Return the template of the route that served a request, or None if no route did.

    ``scope`` is the request's scope after the application has handled the request.
    """
    path = _last_part(scope)
    if path is None:
        return None
    prefix = scope.get("root_path", "")[len(scope.get("app_root_path", "")) :]
    if not prefix or "app_root_path" not in scope:
        return path
    # ``prefix`` is the part of the request's path that leads to the mounted application.  It must
    # not be returned: clients choose the values in it, and the result is used as a metric label,
    # which must have few different values.
    return (_mounts(getattr(scope.get("router"), "routes", ()), prefix) or ANY) + path


def _last_part(scope: Scope) -> str | None:
    """Return the template of the route inside the innermost mount, or None if no route matched."""
    # FastAPI's ``effective_route_context`` contains the full path of a route that was added with
    # ``include_router``; the route itself lacks the router's prefix.
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
        return ANY
    path = getattr(route, "path_format", None)
    return path if isinstance(path, str) else None


def _route_of(endpoint: object, scope: Scope, routes: Iterable[Any]) -> object:
    """Return the route that has this endpoint and accepts the request's method, or None."""
    found = None
    for route in routes:
        if isinstance(route, (Mount, Host)):
            is_end = route.app is endpoint
            inner = route if is_end else _route_of(endpoint, scope, _routes_behind(route.app))
            found = found or inner
        elif getattr(route, "endpoint", None) is endpoint and _fits(route, scope):
            return route
    return found


def _fits(route: Any, scope: Scope) -> bool:
    """Return whether ``scope`` has a method that the route accepts, and the route's parameters."""
    methods = getattr(route, "methods", None)
    if methods and scope.get("method") not in methods:
        return False
    names = set(getattr(route, "param_convertors", ()))
    return names <= set(scope.get("path_params", ()))


def _mounts(routes: Iterable[Any], prefix: str) -> str | None:
    """Return the path template of the mounts that matched ``prefix``, or None if no mount did."""
    for route in routes:
        if isinstance(route, Mount):
            found = _through(route, prefix)
        elif isinstance(route, Host):
            found = _mounts(_routes_behind(route.app), prefix)
        else:
            found = _included(route, prefix)
        if found is not None:
            return found
    return None


def _through(mount: Mount, prefix: str) -> str | None:
    match = mount.path_regex.match(prefix + "/")
    if match is None:
        return None
    rest = match.group("path").rstrip("/")
    if not rest:
        return mount.path
    return mount.path + (_mounts(_routes_behind(mount.app), "/" + rest) or ANY)


def _included(route: Any, prefix: str) -> str | None:
    """Return the template of a mount inside an included router, or None if no mount matches.

    Newer versions of FastAPI store an included router as an object in the list of routes.
    """
    router = getattr(route, "original_router", None)
    before = getattr(getattr(route, "include_context", None), "prefix", "")
    if router is None or not prefix.startswith(before):
        return None
    found = _mounts(router.routes, prefix[len(before) :])
    return None if found is None else before + found


def _routes_behind(app: Any) -> Iterable[Any]:
    """Return the routes of an application, which may be wrapped in middleware."""
    for _ in range(_MAX_LAYERS):
        routes = getattr(app, "routes", None)
        if routes is not None or app is None:
            return routes or ()
        app = getattr(app, "app", None)
    return ()
