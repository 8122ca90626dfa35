"""The page's application: its routes behind the guard, and the watch that feeds them."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from leekfanout.errors import LeekfanoutError
from leekfanout.web.agent import Agent
from leekfanout.web.guard import Door, Guard
from leekfanout.web.leek_routes import LeekRoutes
from leekfanout.web.letters import Letters
from leekfanout.web.orders import Orders
from leekfanout.web.pages import Pages
from leekfanout.web.replies import on_http_error, on_known_error, on_unknown_error
from leekfanout.web.stream import Streams
from leekfanout.web.watch import Watch


def build(agent: Agent, door: Door, closing: Callable[[], bool] = lambda: False) -> Starlette:
    """Return the ASGI application; ``closing`` says whether the server is about to end."""
    watch = Watch(agent)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(watch.run())
        yield
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    return Starlette(
        routes=[
            *Pages(agent, door).routes(),
            *LeekRoutes(agent, watch.poke).routes(),
            *Letters(agent).routes(),
            *Orders(agent, watch.poke).routes(),
            Route("/agent/events", Streams(watch, closing).endpoint, methods=["GET"]),
        ],
        middleware=[Middleware(Guard, door=door)],
        exception_handlers={
            LeekfanoutError: on_known_error,
            HTTPException: on_http_error,
            Exception: on_unknown_error,
        },
        lifespan=lifespan,
    )
