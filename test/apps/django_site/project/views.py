"""The views that the tests ask for; logging in is the admin's."""
import hashlib

from django.contrib.auth.decorators import login_required
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.views.decorators.csrf import csrf_exempt

BLOCK = 64 << 10


def index(request):
    return HttpResponse("Hello, World!")


@login_required(login_url="/admin/login/")
def whoami(request):
    return JsonResponse({"user": request.user.get_username()})


def form(request):
    """GET gives the token, POST needs it."""
    if request.method == "GET":
        return HttpResponse(get_token(request))
    return JsonResponse({"posted": request.POST.dict()})


@csrf_exempt
def upload(request):
    """A multipart field "file", or the body itself; never all of it in memory."""
    digest, size = hashlib.sha256(), 0
    source = request.FILES["file"] if request.content_type == "multipart/form-data" else request
    while block := source.read(BLOCK):
        digest.update(block)
        size += len(block)
    return JsonResponse({"bytes": size, "sha256": digest.hexdigest()})


def download(request):
    """?bytes= (1 GiB) of "0123456789abcdef" over and over, streamed in blocks
    of 64 KiB; ?length=1 declares the length."""
    size = int(request.GET.get("bytes", 1 << 30))
    block = b"0123456789abcdef" * (BLOCK // 16)

    def blocks():
        for start in range(0, size, BLOCK):
            yield block[:min(BLOCK, size - start)]

    response = StreamingHttpResponse(blocks(), content_type="application/octet-stream")
    if "length" in request.GET:
        response["Content-Length"] = str(size)
    return response


def fail(request):
    raise RuntimeError("raised in a Django view")
