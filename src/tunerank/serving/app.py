"""The routes of the server."""

import asyncio
import contextlib
from collections.abc import Collection, Iterable
from importlib.metadata import version
from json import JSONDecodeError

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tunerank.serving.asked import Documents, SearchFor, Texts
from tunerank.serving.bodies import loaded
from tunerank.serving.guard import Guard
from tunerank.serving.limits import Gone, Refused
from tunerank.serving.metrics import CONTENT_TYPE
from tunerank.serving.protocols import TEI, protocol_of
from tunerank.serving.service import Service


def schema(*kinds: type) -> dict:
    """Return the OpenAPI description of a route's body."""
    forms = [kind.model_json_schema() for kind in kinds]
    form = forms[0] if len(forms) == 1 else {"oneOf": forms}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": form}}}}


async def object_of(request: Request, most: int) -> dict:
    """Return a request's body.

    Args:
        most: see `loaded`.

    Raises:
        Refused: it is no JSON object, or a large one.
    """
    try:
        value = loaded(await request.body(), most)
    except JSONDecodeError as error:
        raise Refused(400, f"the body is no JSON ({error.msg}, character {error.pos})") from None
    except (ValueError, RecursionError):  # not UTF-8, a number of 5000 digits, a deep nesting
        raise Refused(400, "the body is no JSON that can be read") from None
    if not isinstance(value, dict):
        raise Refused(400, "the body is no JSON object; send one with query and documents")
    return value


def routes(service: Service) -> APIRouter:
    """Return the router of all protocols."""
    router, most = APIRouter(), service.limits.values

    @router.post("/rerank", openapi_extra=schema(Documents, Texts))
    async def rerank(request: Request) -> Response:
        """Score documents: text-embeddings-inference (`texts`), Infinity, vLLM (`documents`)."""
        body = await object_of(request, most)
        protocol = TEI if "texts" in body else protocol_of("/rerank")
        request.state.protocol = protocol
        return await service.rerank(request, protocol, body)

    @router.post("/v1/rerank", openapi_extra=schema(Documents))
    @router.post("/v2/rerank", openapi_extra=schema(Documents))
    async def rerank_v(request: Request) -> Response:
        """Score documents: Jina (v1), Cohere (v1, v2)."""
        protocol = protocol_of(request.url.path)
        return await service.rerank(request, protocol, await object_of(request, most))

    @router.post("/search", openapi_extra=schema(SearchFor))
    async def search(request: Request) -> Response:
        """Return the best passages of the corpus by a system of metrics/eval.json."""
        return await service.search(request, await object_of(request, most))

    @router.get("/health")
    async def health() -> Response:
        """Return whether the model can be asked."""
        if service.worker.alive:
            return JSONResponse({"status": "ok"})
        raise Refused(503, "the model's thread has ended; start the server again")

    @router.get("/metrics")
    async def metrics() -> Response:
        """Return counters for Prometheus."""
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)

    @router.get("/info")
    async def info() -> Response:
        """Return what is served, and the limits."""
        return JSONResponse(service.about())

    @router.get("/models")
    @router.get("/v1/models")
    async def models() -> Response:
        """Return the names that `model` can have."""
        return JSONResponse(service.models())

    return router


def application(
    service: Service,
    key: str | None = None,
    hosts: Collection[str] | None = None,
    routers: Iterable[APIRouter] = (),
    public: Collection[str] = (),
) -> Guard:
    """Return the ASGI application.

    Args:
        key, hosts, public: see Guard.
        routers: further ones, such as that of the page.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI):
        service.worker.start()
        yield
        await asyncio.to_thread(service.worker.close)

    app = FastAPI(
        title="tunerank",
        version=version("tunerank"),
        description=f"Rerankers' protocols. Model: {service.names[0]}.",
        redoc_url=None,
        redirect_slashes=False,  # behind a proxy with TLS to plain http, with the client's key
        lifespan=lifespan,
    )
    paths = {route.path for route in app.routes}
    for router in (routes(service), *routers):
        app.include_router(router)
        paths |= {route.path for route in router.routes}

    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        protocol = getattr(request.state, "protocol", protocol_of(request.url.path))
        content = protocol.error(error.status, error.line)
        return JSONResponse(content, error.status, error.headers)

    @app.exception_handler(Gone)
    async def gone(request: Request, error: Gone) -> Response:
        return Response(status_code=499)  # nobody reads it; the metrics count it

    @app.exception_handler(HTTPException)
    async def failed(request: Request, error: HTTPException) -> Response:
        content = protocol_of(request.url.path).error(error.status_code, str(error.detail))
        return JSONResponse(content, error.status_code, error.headers)

    return Guard(app, service.limits, service.metrics, paths, key, hosts, public)
