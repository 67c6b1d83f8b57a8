#!/usr/bin/env python3
"""Makes the site in TEST_DIR: its database, its static files, its people."""
import os

import django
from django.core.management import call_command

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "project.settings")
django.setup()
call_command("migrate", verbosity=0)
call_command("collectstatic", verbosity=0, interactive=False)

from django.contrib.auth.models import User  # noqa: E402 needs django.setup()

User.objects.create_superuser("admin", "admin@example.org", "secret")
for name in ("ann", "ben", "eve"):
    User.objects.create_user(name, password="secret", is_staff=True)
