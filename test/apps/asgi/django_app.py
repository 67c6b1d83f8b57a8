"""The site of frameworks_test.go in Django, its sockets with Channels."""
import asyncio
import hashlib
import os

import django
from django.conf import settings

settings.configure(
    SECRET_KEY="only for tests", ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, USE_TZ=True, MIDDLEWARE=[],
    CHANNEL_LAYERS={"default": {"BACKEND": "channels.layers.InMemoryChannelLayer"}})
django.setup()

from channels.generic.websocket import AsyncWebsocketConsumer  # noqa: E402: wants the settings
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402
from django.core.asgi import get_asgi_application  # noqa: E402
from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.static import serve  # noqa: E402

done, ended, tasks = [], [], set()


async def index(request):
    return HttpResponse(f"Django started {request.build_absolute_uri(django.urls.reverse('index'))}")


class Chat(AsyncWebsocketConsumer):
    async def connect(self):
        await self.channel_layer.group_add("chat", self.channel_name)
        await self.accept(subprotocol="chat")

    async def receive(self, text_data=None, bytes_data=None):
        await self.channel_layer.group_send("chat", {"type": "say", "text": text_data})

    async def say(self, event):
        await self.send(event["text"])

    async def disconnect(self, code):
        ended.append(f"chat {code}")
        await self.channel_layer.group_discard("chat", self.channel_name)


async def events(request):
    async def ticks():
        try:
            for tick in range(1000):
                yield f"data: {tick}\n\n"
                await asyncio.sleep(0.05)
        finally:
            ended.append("events")

    return StreamingHttpResponse(ticks(), content_type="text/event-stream")


def upload(request):  # not async: it runs in a thread
    digest, size = hashlib.sha256(), 0
    for block in request.FILES["file"].chunks():
        digest.update(block)
        size += len(block)
    return JsonResponse({"bytes": size, "sha256": digest.hexdigest()})


async def later(request):
    async def work():
        await asyncio.sleep(0.3)
        done.append("work")

    tasks.add(asyncio.create_task(work()))
    return HttpResponse("soon")


def file(request):
    return FileResponse(open(os.environ["SITE_FILE"], "rb"))


async def report(request):
    return JsonResponse({"done": done, "ended": ended})


async def fail(request):
    raise RuntimeError("raised in Django")


urlpatterns = [
    path("", index, name="index"), path("events", events), path("upload", upload), path("later", later), path("file", file),
    path("report", report), path("fail", fail),
    path("static/<path:path>", serve, {"document_root": os.path.dirname(os.environ["SITE_FILE"])}),
]
app = ProtocolTypeRouter({"http": get_asgi_application(), "websocket": URLRouter([path("chat", Chat.as_asgi())])})
