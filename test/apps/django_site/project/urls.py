from django.contrib import admin
from django.urls import path

from . import views

urlpatterns = [
    path("", views.index),
    path("admin/", admin.site.urls),
    path("whoami/", views.whoami),
    path("form/", views.form),
    path("upload/", views.upload),
    path("download/", views.download),
    path("fail/", views.fail),
]
