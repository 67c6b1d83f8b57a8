"""The site, with both sides held to PEP 3333."""
from wsgiref.validate import validator

from .wsgi import application as site

application = validator(site)
