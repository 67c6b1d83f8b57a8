"""From the name of an application to the callable and its interface, or to an
explanation.

    module:attr           an attribute, dotted if need be
    module:factory(...)   what a call returns; the arguments are literals
    module                `application`, `app`, `create_app()` or `make_app()`
    path/to/file.py[:...] the same in a file; also a file named *.wsgi
"""

import ast
import difflib
import functools
import gc
import importlib
import importlib.machinery
import importlib.util
import inspect
import os
import re
import sys
import traceback

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep

_APPLICATIONS = ("application", "app")
_FACTORIES = ("create_app", "make_app")


class LoadError(Exception):
    """The application can't be loaded. The text is the whole message for the
    user: traceback if there is one, what was tried, the next step."""


class StartupFailed(Exception):
    """The application, which is loaded, can't start. The text is the whole
    message for the user."""


def load(name, interface="auto"):
    """Returns the callable called name and its interface, "wsgi" or "asgi",
    which is found by looking at it when interface is "auto". Raises LoadError.
    """
    target, _, expression = name.partition(":")
    if not target:
        raise LoadError(_say(name, "there is no module before the colon", "write MODULE:NAME, for example wsgi:application"))
    module = _load_module(name, target)
    if expression:
        app, what = _evaluate(name, module, expression)
    else:
        app, what = _guess(name, module)
    if not callable(app):
        raise LoadError(_say(name, "%s is %s, which can't be called" % (what, _kind(app)),
                             "name the WSGI or ASGI application, or return it from the factory"))
    if interface == "auto":
        interface = "asgi" if _looks_like_asgi(app) else "wsgi"
    if interface == "asgi":
        return _check_asgi(name, app, what), interface
    _check_wsgi(name, app, what)
    return app, interface


# -- Modules ----------------------------------------------------------------


def _load_module(name, target):
    if os.sep in target or target.endswith(".py") or (target.endswith(".wsgi") and os.path.isfile(target)):
        return _load_file(name, target)
    try:
        return importlib.import_module(target)
    except BaseException as exc:  # SystemExit: a module may call sys.exit()
        raise LoadError(_say_import(name, "the module %r" % target, exc)) from exc


def _load_file(name, target):
    path = os.path.abspath(target)
    if not os.path.isfile(path):
        raise LoadError(_say(name, "there is no file %s" % path, "check the path, which is taken from %s" % os.getcwd()))
    directory = os.path.dirname(path)
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)
    module_name = re.sub(r"\W", "_", os.path.splitext(os.path.basename(path))[0])
    if module_name in sys.modules:
        module_name = "_gatecrew_" + module_name  # a file called, say, signal.py
    loader = importlib.machinery.SourceFileLoader(module_name, path)
    module = importlib.util.module_from_spec(importlib.util.spec_from_file_location(module_name, path, loader=loader))
    sys.modules[module_name] = module
    try:
        loader.exec_module(module)
    except BaseException as exc:
        raise LoadError(_say_import(name, "the file %s" % path, exc)) from exc
    return module


# -- Attributes -------------------------------------------------------------


def _evaluate(name, module, expression):
    """Returns what expression means in module, and how to call it in text."""
    node = arguments = None
    try:
        node = ast.parse(expression, mode="eval").body
        if isinstance(node, ast.Call):
            arguments = (
                [ast.literal_eval(a) for a in node.args],
                {k.arg: ast.literal_eval(k.value) for k in node.keywords},
            )
            node = node.func
        path = []
        while isinstance(node, ast.Attribute):
            path.insert(0, node.attr)
            node = node.value
        path.insert(0, node.id)
    except (SyntaxError, ValueError, TypeError, AttributeError):
        raise LoadError(_say(
            name, "%r is neither a name nor a call with literal arguments" % expression,
            "write MODULE:NAME, or MODULE:FACTORY() for a function that makes the application",
        )) from None
    found = module
    for i, part in enumerate(path):
        try:
            found = getattr(found, part)
        except AttributeError:
            where = "the module" if i == 0 else repr(".".join(path[:i]))
            raise LoadError(_say(name, "%s has no attribute %r" % (where, part), _candidates(module, part))) from None
    what = ".".join(path)
    if arguments is not None:
        found = _call(name, found, what, *arguments)
        what += "()"
    return found, what


def _guess(name, module):
    for attribute in _APPLICATIONS:
        found = getattr(module, attribute, None)
        if callable(found):
            return found, attribute
    for attribute in _FACTORIES:
        found = getattr(module, attribute, None)
        if callable(found):
            return _call(name, found, attribute, [], {}), attribute + "()"
    raise LoadError(_say(
        name,
        "the module has no callable %s, %s" % (" or ".join(_APPLICATIONS), " or ".join(f + "()" for f in _FACTORIES)),
        _candidates(module),
    ))


def _call(name, factory, what, args, kwargs):
    if not callable(factory):
        raise LoadError(_say(name, "%s can't be called: it is %s" % (what, _kind(factory)), "write the name without ()"))
    try:
        return factory(*args, **kwargs)
    except BaseException as exc:
        raise LoadError(_traceback(exc) + _say(
            name, "%s() failed: %s" % (what, _last_line(exc)), "the traceback above says where",
        )) from exc


# -- Interfaces -------------------------------------------------------------


def _looks_like_asgi(app):
    """Whether a callable is an ASGI application rather than a WSGI one."""
    while isinstance(app, functools.partial) and not _takes(app, 2):
        app = app.func
    if inspect.isclass(app):
        return hasattr(app, "__await__") or _is_double(app)
    if _is_asynchronous(app):
        return True
    # A callable that returns something to await, or that was compiled.
    return _takes(app, 3) and not _takes(app, 2)


def _is_asynchronous(app):
    return any(
        inspect.iscoroutinefunction(f) or hasattr(f, "_is_coroutine")  # marked by asyncio, or asgiref
        for f in (app, getattr(app, "func", None), getattr(app, "__call__", None))
    )


def _is_double(app):
    """Whether a class is an ASGI 2 application: made with the scope, and then
    called with receive and send."""
    return inspect.isclass(app) and inspect.iscoroutinefunction(getattr(app, "__call__", None)) and _takes(app, 1)


def _takes(app, count):
    """Whether app can be called with so many arguments. True when that is not
    known, as for some callables written in C."""
    try:
        inspect.signature(app).bind(*[None] * count)
    except TypeError:
        return False
    except ValueError:
        pass
    return True


def _check_asgi(name, app, what):
    """Returns the ASGI 3 callable that app is or that it can be called as.
    Finds, before the first request does, what can't be one."""
    if not _takes(app, 3) and (_is_double(app) or (_takes(app, 1) and not _is_asynchronous(app))):
        return _single(app)
    if not _takes(app, 3):
        signature = inspect.signature(app)
        why = "%s%s can't be called with scope, receive and send" % (what, signature)
        step = "name a callable that takes these"
        if not signature.parameters:
            step = "if it is a factory, write %s()" % what
            if inspect.iscoroutinefunction(app):
                step = "if it is a factory, make it a plain function, not a coroutine, and write %s()" % what
        elif _takes(app, 2):
            why = "%s%s takes two arguments, as a WSGI application does" % (what, signature)
            step = "this worker was started with --interface asgi; use wsgi, or auto, or name an ASGI application"
        raise LoadError(_say(name, why, step))
    return app


def _single(double):
    """An ASGI 2 application as one of ASGI 3."""

    async def app(scope, receive, send):
        await double(scope)(receive, send)

    return app


def _check_wsgi(name, app, what):
    """Finds, before the first request does, what can't be a WSGI application."""
    if _is_asynchronous(app):
        raise LoadError(_say(name, "%s is asynchronous, an ASGI application it seems" % what,
                             "this worker was started with --interface wsgi; use asgi, or auto, or name a WSGI application"))
    if _takes(app, 2):
        return
    signature = inspect.signature(app)
    step = "name a callable that takes environ and start_response"
    if not signature.parameters:
        step = "if it is a factory, write %s()" % what
    raise LoadError(_say(name, "%s%s can't be called with environ and start_response" % (what, signature), step))


# -- Messages ---------------------------------------------------------------


def _say(name, why, step):
    return 'gatecrew: cannot load the application "%s": %s\n  next step: %s' % (name, why, step)


def _say_import(name, what, exc):
    missing = exc.name if isinstance(exc, ModuleNotFoundError) else None
    step = "the traceback above says where"
    if missing:
        step = "install it for this interpreter, or choose the one that has it (--python), or the directory (--chdir)"
    return (
        _traceback(exc)
        + _say(name, "importing %s failed: %s" % (what, _last_line(exc)), step)
        + "\n  interpreter: %s (Python %s)\n  sys.path[0]: %s\n  working directory: %s"
        % (sys.executable, sys.version.split()[0], sys.path[0] if sys.path else "", os.getcwd())
    )


def _traceback(exc):
    """The traceback without the frames of this package and of the import
    system that lie above the application's own."""
    tb = exc.__traceback__
    while tb is not None and tb.tb_frame.f_code.co_filename.startswith((_PACKAGE, "<frozen importlib", importlib.__file__)):
        tb = tb.tb_next
    return "".join(traceback.format_exception(type(exc), exc, tb))


def _last_line(exc):
    return traceback.format_exception_only(type(exc), exc)[-1].strip()


def _kind(value):
    return "None" if value is None else "of type %s" % type(value).__name__


def _candidates(module, wanted=""):
    """A next step: the names of module that may be what was meant."""
    callables = {n: v for n, v in vars(module).items() if callable(v) and not n.startswith("_")}
    names = difflib.get_close_matches(wanted, callables, 1) or [
        n for n, v in callables.items() if getattr(v, "__module__", None) == module.__name__
    ] or list(callables)
    if not names:
        return "define one; %s has nothing that can be called" % module.__name__
    return "name one of the callables that %s has: %s" % (module.__name__, ", ".join(names[:20]))


def set_aside():
    """Has the garbage collector leave out what was loaded until now. To look through
    all of it takes 30 ms where Flask was loaded and more elsewhere, comes upon some
    request or other, and finds nothing."""
    gc.collect()  # what is garbage now would be kept for good
    if hasattr(gc, "freeze"):  # CPython's; PyPy's has no such thing
        gc.freeze()
