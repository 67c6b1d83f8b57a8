/* The quick half of the worker: what _records.py, _wsgi.py and _threads.py do
 * for a usual request, in C.
 *
 * The Python code is the reference. Nothing here decides anything on its own:
 * whatever is unusual is left to the Python method of the same name, and the
 * tests are the same for both.
 *
 * Stable ABI of Python 3.8: one file for all later versions, but for
 * free-threaded builds, which lay out objects in another way; _native.py looks
 * after that.
 */

#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x03080000
#endif
#include <Python.h>
#include <structmember.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Raised together with the one in _native.py, whenever what one expects of the
 * other changes. */
#define INTERFACE 1

/* What the functions of this file need of Python, looked up once. */
static PyObject *ProtocolError; /* of _records.py */

/* -- Codec: PROTOCOL.md, sections 1 and 2 ---------------------------------- */

/* Reads the length at *pos. Returns -1 when the block ends in the middle of
 * it. */
static Py_ssize_t
read_length(const unsigned char *block, Py_ssize_t size, Py_ssize_t *pos)
{
    Py_ssize_t at = *pos;
    if (at >= size)
        return -1;
    if (block[at] < 128) {
        *pos = at + 1;
        return block[at];
    }
    if (size - at < 4)
        return -1;
    *pos = at + 4;
    return (Py_ssize_t)(((uint32_t)(block[at] & 0x7f) << 24) | ((uint32_t)block[at + 1] << 16)
                        | ((uint32_t)block[at + 2] << 8) | (uint32_t)block[at + 3]);
}

/* Adds the pairs of a block to a dictionary, as latin-1 text. Returns -1 with
 * an exception when that can't be done; the pairs before the fault are there
 * then. */
static int
add_pairs(const unsigned char *block, Py_ssize_t size, PyObject *into)
{
    Py_ssize_t pos = 0;
    while (pos < size) {
        Py_ssize_t name_size = read_length(block, size, &pos);
        Py_ssize_t value_size = name_size < 0 ? -1 : read_length(block, size, &pos);
        /* Two steps: the sum of both may be more than a Py_ssize_t of 32 bits
         * can hold. */
        if (value_size < 0 || name_size > size - pos || value_size > size - pos - name_size) {
            PyErr_SetString(ProtocolError, "name-value pairs: cut in the middle of a pair");
            return -1;
        }
        PyObject *name = PyUnicode_DecodeLatin1((const char *)block + pos, name_size, NULL);
        PyObject *value = PyUnicode_DecodeLatin1((const char *)block + pos + name_size, value_size, NULL);
        int failed = name == NULL || value == NULL || PyDict_SetItem(into, name, value) < 0;
        Py_XDECREF(name);
        Py_XDECREF(value);
        if (failed)
            return -1;
        pos += name_size + value_size;
    }
    return 0;
}

/* decode_pairs(block, into), as in _records.py. */
static PyObject *
decode_pairs(PyObject *module, PyObject *args)
{
    (void)module;
    char *block;
    Py_ssize_t size;
    PyObject *bytes, *into;
    if (!PyArg_ParseTuple(args, "SO!:decode_pairs", &bytes, &PyDict_Type, &into)
        || PyBytes_AsStringAndSize(bytes, &block, &size) < 0
        || add_pairs((const unsigned char *)block, size, into) < 0)
        return NULL;
    Py_INCREF(into);
    return into;
}

/* -- WSGI ------------------------------------------------------------------ */

/* -- ASGI ------------------------------------------------------------------
 *
 * What _async.py, _scope.py and _asgi.py do for a usual request. The types here
 * are the fields of classes of Python, which inherit from them (_asgi_native.py),
 * so that a method finds what it knows whoever has set it. Each function that
 * changes them holds the interpreter's lock from its first change to its last:
 * the thread that gives requests back sees all of it or nothing. */

static PyObject *current_task, *new_deque, *describe_tls;
static PyObject *status_lines; /* status -> the first line of a head */
static PyObject *no_bytes, *no_items;

static PyObject *s_ahead, *s_await, *s_begun, *s_body, *s_client, *s_draining, *s_early_hint, *s_extensions, *s_finish_if_done, *s_get, *s_grant,
    *s_headers, *s_learn, *s_make, *s_max_requests, *s_method, *s_more_body, *s_path, *s_pathsend, *s_popleft,
    *s_query_string, *s_raw_path, *s_receive, *s_release_soon, *s_request, *s_requests, *s_response_body, *s_response_start,
    *s_root_path, *s_seen, *s_send, *s_state, *s_status, *s_stop_if_done, *s_tls, *s_trailers, *s_http_trailers, *s_type, *s_wake,
    *s_window, *s_write_unsent;

static const struct {
    PyObject **at;
    const char *text;
} asgi_strings[] = {
    {&s_ahead, "ahead"},
    {&s_await, "__await__"},
    {&s_begun, "begun"},
    {&s_body, "body"},
    {&s_client, "client"},
    {&s_draining, "draining"},
    {&s_early_hint, "http.response.early_hint"},
    {&s_extensions, "extensions"},
    {&s_finish_if_done, "_finish_if_done"},
    {&s_get, "get"},
    {&s_grant, "_grant"},
    {&s_headers, "headers"},
    {&s_learn, "_learn"},
    {&s_make, "_make"},
    {&s_max_requests, "max_requests"},
    {&s_method, "method"},
    {&s_more_body, "more_body"},
    {&s_path, "path"},
    {&s_pathsend, "http.response.pathsend"},
    {&s_popleft, "popleft"},
    {&s_query_string, "query_string"},
    {&s_raw_path, "raw_path"},
    {&s_receive, "_receive"},
    {&s_release_soon, "_release_soon"},
    {&s_request, "http.request"},
    {&s_requests, "requests"},
    {&s_response_body, "http.response.body"},
    {&s_response_start, "http.response.start"},
    {&s_root_path, "root_path"},
    {&s_seen, "seen"},
    {&s_send, "_send"},
    {&s_state, "state"},
    {&s_status, "status"},
    {&s_stop_if_done, "_stop_if_done"},
    {&s_tls, "tls"},
    {&s_trailers, "trailers"},
    {&s_http_trailers, "http.response.trailers"},
    {&s_type, "type"},
    {&s_wake, "wake"},
    {&s_window, "_window"},
    {&s_write_unsent, "_write_unsent"},
};

/* Takes one reference to an object away from where it stands. */
static void
clear(PyObject **at)
{
    PyObject *object = *at;
    *at = NULL;
    Py_XDECREF(object);
}

/* Calls a method whose result is of no interest. */
static int
call_method(PyObject *object, PyObject *name)
{
    PyObject *result = PyObject_CallMethodObjArgs(object, name, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* The truth of an attribute, -1 with an exception. */
static int
is_attribute_true(PyObject *object, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(object, name);
    int is = value == NULL ? -1 : PyObject_IsTrue(value);
    Py_XDECREF(value);
    return is;
}

static Py_ssize_t
number_attribute(PyObject *object, PyObject *name)
{
    PyObject *value = PyObject_GetAttr(object, name);
    Py_ssize_t number = value == NULL ? -1 : PyLong_AsSsize_t(value);
    Py_XDECREF(value);
    return number;
}

static int
add_to_attribute(PyObject *object, PyObject *name, Py_ssize_t more)
{
    Py_ssize_t number = number_attribute(object, name);
    if (number == -1 && PyErr_Occurred())
        return -1;
    PyObject *value = PyLong_FromSsize_t(number + more);
    int failed = value == NULL || PyObject_SetAttr(object, name, value) < 0;
    Py_XDECREF(value);
    return failed ? -1 : 0;
}

/* Whether an object is a container that has nothing. */
static int
is_empty(PyObject *object)
{
    if (object == no_items)
        return 1;
    Py_ssize_t size = object == NULL || object == Py_None ? -1 : PyObject_Size(object);
    if (size < 0)
        PyErr_Clear();
    return size == 0;
}

/* The fields of AsyncRequest. */
typedef struct {
    PyObject_HEAD
    PyObject *params, *input, *interruption, *task, *waiters, *unsent, *feed;
    long long input_received, input_read, input_granted, granted, sent;
    unsigned long thread;
    int id, role;
    char input_ended, aborted, ended, guarded, closed;
} RequestFields;

static PyTypeObject *RequestType;

static PyMemberDef request_members[] = {
    {"id", T_INT, offsetof(RequestFields, id), 0, NULL},
    {"role", T_INT, offsetof(RequestFields, role), 0, NULL},
    {"params", T_OBJECT, offsetof(RequestFields, params), 0, NULL},
    {"input", T_OBJECT, offsetof(RequestFields, input), 0, NULL},
    {"input_ended", T_BOOL, offsetof(RequestFields, input_ended), 0, NULL},
    {"input_received", T_LONGLONG, offsetof(RequestFields, input_received), 0, NULL},
    {"input_read", T_LONGLONG, offsetof(RequestFields, input_read), 0, NULL},
    {"input_granted", T_LONGLONG, offsetof(RequestFields, input_granted), 0, NULL},
    {"granted", T_LONGLONG, offsetof(RequestFields, granted), 0, NULL},
    {"sent", T_LONGLONG, offsetof(RequestFields, sent), 0, NULL},
    {"aborted", T_BOOL, offsetof(RequestFields, aborted), 0, NULL},
    {"ended", T_BOOL, offsetof(RequestFields, ended), 0, NULL},
    {"thread", T_ULONG, offsetof(RequestFields, thread), 0, NULL},
    {"guarded", T_BOOL, offsetof(RequestFields, guarded), 0, NULL},
    {"interruption", T_OBJECT, offsetof(RequestFields, interruption), 0, NULL},
    {"task", T_OBJECT, offsetof(RequestFields, task), 0, NULL},
    {"waiters", T_OBJECT, offsetof(RequestFields, waiters), 0, NULL},
    {"unsent", T_OBJECT, offsetof(RequestFields, unsent), 0, NULL},
    {"feed", T_OBJECT, offsetof(RequestFields, feed), 0, NULL},
    {"closed", T_BOOL, offsetof(RequestFields, closed), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define INPUT_WINDOW 131072 /* of _connection.py */
#define LARGEST_RECORD 32768 /* STDOUT content of one, as in _async.py */

/* Makes a request that has no parameters yet. Steals what its input is put in,
 * which may be NULL. */
static RequestFields *
make_request(PyTypeObject *type, int id, long long window, int role, PyObject *input)
{
    RequestFields *request = input == NULL ? NULL : (RequestFields *)PyType_GenericAlloc(type, 0);
    if (request == NULL) {
        Py_XDECREF(input);
        return NULL;
    }
    request->id = id;
    request->role = role;
    request->granted = window;
    request->input_granted = INPUT_WINDOW;
    request->guarded = 1;
    request->input = input;
    Py_INCREF(no_items);
    request->waiters = no_items;
    Py_INCREF(no_items);
    request->unsent = no_items;
    return request;
}

/* AsyncRequest(id, window, role=RESPONDER). */
static PyObject *
request_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    int id, role = 1;
    long long window;
    if (kwargs != NULL && PyDict_Size(kwargs) != 0) {
        PyErr_SetString(PyExc_TypeError, "a request takes no keyword arguments");
        return NULL;
    }
    if (!PyArg_ParseTuple(args, "iL|i", &id, &window, &role))
        return NULL;
    if (new_deque == NULL) {
        PyErr_SetString(PyExc_RuntimeError, "prepare_asgi has not been called");
        return NULL;
    }
    return (PyObject *)make_request(type, id, window, role, PyObject_CallFunctionObjArgs(new_deque, NULL));
}

static int
request_traverse(PyObject *self, visitproc visit, void *arg)
{
    RequestFields *request = (RequestFields *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(request->input);
    Py_VISIT(request->interruption);
    Py_VISIT(request->task);
    Py_VISIT(request->waiters);
    Py_VISIT(request->unsent);
    Py_VISIT(request->feed);
    return 0;
}

static int
request_clear(PyObject *self)
{
    RequestFields *request = (RequestFields *)self;
    clear(&request->params);
    clear(&request->input);
    clear(&request->interruption);
    clear(&request->task);
    clear(&request->waiters);
    clear(&request->unsent);
    clear(&request->feed);
    return 0;
}

/* Ends an object whose references have been cleared. */
static void
release(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static void
request_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    request_clear(self);
    release(self);
}

static PyType_Slot request_slots[] = {
    {Py_tp_new, request_new},       {Py_tp_dealloc, request_dealloc}, {Py_tp_traverse, request_traverse},
    {Py_tp_clear, request_clear},   {Py_tp_members, request_members}, {0, NULL},
};

static PyType_Spec request_spec = {
    "gatecrew_worker._speed.Request", sizeof(RequestFields), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, request_slots,
};

/* The fields of Loop that every answer needs. */
typedef struct {
    PyObject_HEAD
    PyObject *out, *connection, *requests, *ready, *running;
    unsigned long thread;
    char holding, broken, end_of_input;
} LoopFields;

static PyTypeObject *LoopType;

static PyMemberDef loop_members[] = {
    {"_out", T_OBJECT, offsetof(LoopFields, out), 0, NULL},
    {"_connection", T_OBJECT, offsetof(LoopFields, connection), 0, NULL},
    {"_requests", T_OBJECT, offsetof(LoopFields, requests), 0, NULL},
    {"_ready", T_OBJECT, offsetof(LoopFields, ready), 0, NULL},
    {"_running", T_OBJECT, offsetof(LoopFields, running), 0, NULL},
    {"_thread", T_ULONG, offsetof(LoopFields, thread), 0, NULL},
    {"_holding", T_BOOL, offsetof(LoopFields, holding), 0, NULL},
    {"_broken", T_BOOL, offsetof(LoopFields, broken), 0, NULL},
    {"end_of_input", T_BOOL, offsetof(LoopFields, end_of_input), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static int
loop_traverse(PyObject *self, visitproc visit, void *arg)
{
    LoopFields *loop = (LoopFields *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(loop->out);
    Py_VISIT(loop->connection);
    Py_VISIT(loop->requests);
    Py_VISIT(loop->ready);
    Py_VISIT(loop->running);
    return 0;
}

static int
loop_clear(PyObject *self)
{
    LoopFields *loop = (LoopFields *)self;
    clear(&loop->out);
    clear(&loop->connection);
    clear(&loop->requests);
    clear(&loop->ready);
    clear(&loop->running);
    return 0;
}

static void
loop_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    loop_clear(self);
    release(self);
}

static PyObject *
loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    return PyType_GenericAlloc(type, 0);
}

/* Whether nobody wants the request's answer, as Loop.gone says. */
static int
is_gone(LoopFields *loop, RequestFields *request)
{
    return request->aborted || request->closed || loop->end_of_input || loop->broken;
}

/* Takes an open request away. */
static int
forget_request(LoopFields *loop, RequestFields *request)
{
    PyObject *id = PyLong_FromLong(request->id);
    if (id == NULL)
        return -1;
    int has = PyDict_Contains(loop->requests, id);
    if (has > 0)
        has = PyDict_DelItem(loop->requests, id);
    Py_DECREF(id);
    return has < 0 ? -1 : 0;
}

/* take(request): whether the request is to be handled. */
static PyObject *
loop_take(PyObject *self, PyObject *argument)
{
    LoopFields *loop = (LoopFields *)self;
    if (!PyObject_TypeCheck(argument, RequestType) || loop->ready == NULL || !PyDict_Check(loop->ready)) {
        PyErr_SetString(PyExc_TypeError, "that is no request of this loop");
        return NULL;
    }
    RequestFields *request = (RequestFields *)argument;
    int has = PyDict_Contains(loop->ready, argument);
    if (has < 0 || (has && PyDict_DelItem(loop->ready, argument) < 0))
        return NULL;
    if (!has)
        Py_RETURN_FALSE;
    if (request->aborted) {
        PyObject *result = PyObject_CallMethod(self, "end", "Oi", argument, 1);
        if (result == NULL)
            return NULL;
        Py_DECREF(result);
        Py_RETURN_FALSE;
    }
    if (request->task == NULL || request->task == Py_None) {
        clear(&request->task);
        request->task = PyObject_CallFunctionObjArgs(current_task, NULL);
        if (request->task == NULL)
            return NULL;
    }
    request->thread = loop->thread;
    request->guarded = 0;
    Py_RETURN_TRUE;
}

/* done(request): the task of a request is about to end. */
static PyObject *
loop_done(PyObject *self, PyObject *argument)
{
    LoopFields *loop = (LoopFields *)self;
    if (!PyObject_TypeCheck(argument, RequestType) || loop->running == NULL || !PySet_Check(loop->running)) {
        PyErr_SetString(PyExc_TypeError, "that is no request of this loop");
        return NULL;
    }
    /* Its context refers to the request: without the task, there is no cycle. */
    PyObject *task = ((RequestFields *)argument)->task;
    ((RequestFields *)argument)->task = NULL;
    if (task == NULL || task == Py_None) {
        Py_XDECREF(task);
        task = PyObject_CallFunctionObjArgs(current_task, NULL);
        if (task == NULL)
            return NULL;
    }
    int failed = PySet_Discard(loop->running, task) < 0;
    Py_DECREF(task);
    if (failed || (loop->end_of_input && call_method(self, s_finish_if_done) < 0))
        return NULL;
    Py_RETURN_NONE;
}

/* The request that a method of a loop was given; NULL with an exception. */
static RequestFields *
as_request(PyObject *object)
{
    if (object != NULL && PyObject_TypeCheck(object, RequestType))
        return (RequestFields *)object;
    PyErr_SetString(PyExc_TypeError, "that is no request");
    return NULL;
}

/* gone(request): whether nobody wants its answer, and no input will come. */
static PyObject *
loop_gone(PyObject *self, PyObject *argument)
{
    RequestFields *request = as_request(argument);
    return request == NULL ? NULL : PyBool_FromLong(is_gone((LoopFields *)self, request));
}

/* grant(request, read): only looks whether there is something to grant. */
static PyObject *
loop_grant(PyObject *self, PyObject *args)
{
    PyObject *object, *read;
    if (!PyArg_UnpackTuple(args, "grant", 2, 2, &object, &read))
        return NULL;
    RequestFields *request = as_request(object);
    if (request == NULL)
        return NULL;
    long long count = PyLong_AsLongLong(read);
    if (count == -1 && PyErr_Occurred())
        return NULL;
    if (request->input_ended || request->ended || count + INPUT_WINDOW - request->input_granted < INPUT_WINDOW / 2)
        Py_RETURN_NONE;
    return PyObject_CallMethodObjArgs(self, s_grant, object, read, NULL);
}

/* write_soon(request, data): sends a part of the answer, if there is leave for
 * all of it. */
static PyObject *
loop_write_soon(PyObject *self, PyObject *args)
{
    LoopFields *loop = (LoopFields *)self;
    PyObject *object, *data;
    char *text;
    if (!PyArg_UnpackTuple(args, "write_soon", 2, 2, &object, &data))
        return NULL;
    RequestFields *request = as_request(object);
    Py_ssize_t size;
    if (request == NULL || PyBytes_AsStringAndSize(data, &text, &size) < 0)
        return NULL;
    if (size > LARGEST_RECORD || size > request->granted - request->sent || !is_empty(request->unsent) || request->aborted || request->ended
        || loop->broken || loop->out == NULL || !PyList_Check(loop->out))
        Py_RETURN_FALSE;
    PyObject *payload = PyBytes_FromStringAndSize(NULL, 8 + size);
    if (payload == NULL)
        return NULL;
    const unsigned char record[8] = {1, 6, (unsigned char)(request->id >> 8), (unsigned char)request->id,
                                     (unsigned char)(size >> 8), (unsigned char)size, 0, 0};
    memcpy(PyBytes_AsString(payload), record, 8);
    memcpy(PyBytes_AsString(payload) + 8, text, size);
    int failed = PyList_Append(loop->out, payload) < 0;
    Py_DECREF(payload);
    if (failed)
        return NULL;
    request->sent += size;
    if (!loop->holding && call_method(self, s_release_soon) < 0)
        return NULL;
    Py_RETURN_TRUE;
}

/* _touch(request): tells whoever waits that something came. */
static PyObject *
loop_touch(PyObject *self, PyObject *argument)
{
    RequestFields *request = as_request(argument);
    if (request == NULL)
        return NULL;
    if (request->feed != NULL && request->feed != Py_None) {
        PyObject *feed = request->feed;
        Py_INCREF(feed);
        PyObject *result = PyObject_CallFunctionObjArgs(feed, NULL);
        Py_DECREF(feed);
        Py_XDECREF(result);
        if (result == NULL)
            return NULL;
    }
    if (!is_empty(request->unsent)) {
        PyObject *result = PyObject_CallMethodObjArgs(self, s_write_unsent, argument, NULL);
        Py_XDECREF(result);
        if (result == NULL)
            return NULL;
    }
    if (!is_empty(request->waiters) && call_method(argument, s_wake) < 0)
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef loop_methods[] = {
    {"take", loop_take, METH_O, NULL},
    {"done", loop_done, METH_O, NULL},
    {"gone", loop_gone, METH_O, NULL},
    {"grant", loop_grant, METH_VARARGS, NULL},
    {"write_soon", loop_write_soon, METH_VARARGS, NULL},
    {"_touch", loop_touch, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_new, loop_new},         {Py_tp_dealloc, loop_dealloc}, {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},     {Py_tp_members, loop_members}, {Py_tp_methods, loop_methods},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    "gatecrew_worker._speed.Loop", sizeof(LoopFields), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, loop_slots,
};

/* take_requests(connection, type, block, pos, begun): takes in the requests
 * without a body that lie at pos, as long as nothing about them is unusual, and
 * appends them to begun. Returns the position behind them; pos, when there is
 * none. */
static PyObject *
take_requests(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *connection, *type, *bytes, *begun;
    Py_ssize_t pos;
    if (!PyArg_ParseTuple(args, "OO!SnO!:take_requests", &connection, &PyType_Type, &type, &bytes, &pos, &PyList_Type, &begun))
        return NULL;
    if (!PyType_IsSubtype((PyTypeObject *)type, RequestType)) {
        PyErr_SetString(PyExc_TypeError, "that is no class of requests");
        return NULL;
    }
    char *text;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(bytes, &text, &size) < 0)
        return NULL;
    const unsigned char *block = (const unsigned char *)text;
    int draining = is_attribute_true(connection, s_draining);
    if (draining < 0)
        return NULL;
    Py_ssize_t most = number_attribute(connection, s_max_requests);
    Py_ssize_t ahead = most < 0 ? -1 : number_attribute(connection, s_ahead);
    if (most < 0 || ahead < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_ValueError, "a limit of requests is below zero");
        return NULL;
    }
    most += ahead;
    PyObject *window_object = PyObject_GetAttr(connection, s_window);
    if (window_object == NULL)
        return NULL;
    long long window = PyLong_AsLongLong(window_object);
    Py_DECREF(window_object);
    if (window == -1 && PyErr_Occurred())
        return NULL;
    PyObject *requests = PyObject_GetAttr(connection, s_requests);
    if (requests == NULL)
        return NULL;
    Py_ssize_t count = 0;
    int failed = !PyDict_Check(requests);
    if (failed)
        PyErr_SetString(PyExc_TypeError, "the requests are in no dictionary");
    while (!failed && !draining && pos >= 0 && size - pos >= 40 && PyDict_Size(requests) < most) {
        /* BEGIN_REQUEST(id, RESPONDER, FCGI_KEEP_CONN), PARAMS(id, ...), and the
         * empty records that end PARAMS and STDIN. */
        const unsigned char *at = block + pos;
        int high = at[2], low = at[3];
        Py_ssize_t length = at[20] << 8 | at[21];
        const unsigned char head[24] = {1, 1, high, low, 0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 4, high, low, at[20], at[21], 0, 0};
        const unsigned char tail[16] = {1, 4, high, low, 0, 0, 0, 0, 1, 5, high, low, 0, 0, 0, 0};
        if (memcmp(at, head, 24) != 0 || length == 0 || length > size - pos - 40 || memcmp(at + 24 + length, tail, 16) != 0
            || (high | low) == 0)
            break;
        PyObject *id = PyLong_FromLong(high << 8 | low);
        int is_open = id == NULL ? -1 : PyDict_Contains(requests, id);
        if (is_open != 0) {
            Py_XDECREF(id);
            failed = is_open < 0;
            break; /* a violation, that the Python code complains of */
        }
        Py_INCREF(no_items); /* nothing will be put in */
        RequestFields *request = make_request((PyTypeObject *)type, high << 8 | low, window, 1, no_items);
        failed = request == NULL || (request->params = PyBytes_FromStringAndSize((const char *)at + 24, length)) == NULL
                 || PyList_Append(begun, (PyObject *)request) < 0 || PyDict_SetItem(requests, id, (PyObject *)request) < 0;
        if (!failed) {
            request->input_ended = 1;
            pos += 40 + length;
            count++;
        }
        Py_XDECREF(request);
        Py_DECREF(id);
    }
    Py_DECREF(requests);
    if (failed || (count > 0 && (add_to_attribute(connection, s_seen, count) < 0 || add_to_attribute(connection, s_begun, count) < 0)))
        return NULL;
    return PyLong_FromSsize_t(pos);
}

/* What a parameter is to a scope. */
enum {
    CONTENT_TYPE, CONTENT_LENGTH, HTTP_HOST, PATH_INFO, QUERY_STRING, REMOTE_ADDR, REMOTE_PORT, REQUEST_METHOD, REQUEST_URI, SCRIPT_NAME,
    VARIABLES, /* those before are looked at in one place */
    FIELD, OF_TLS, SKIPPED, UNUSUAL
};

static const struct {
    const char *name;
    int kind;
} asgi_variables[] = {
    {"CONTENT_TYPE", CONTENT_TYPE},       {"CONTENT_LENGTH", CONTENT_LENGTH}, {"HTTP_HOST", HTTP_HOST},
    {"PATH_INFO", PATH_INFO},             {"QUERY_STRING", QUERY_STRING},     {"REMOTE_ADDR", REMOTE_ADDR},
    {"REMOTE_PORT", REMOTE_PORT},         {"REQUEST_METHOD", REQUEST_METHOD}, {"REQUEST_URI", REQUEST_URI},
    {"SCRIPT_NAME", SCRIPT_NAME},         {"HTTP_PROXY", SKIPPED},            {"HTTP_TE", UNUSUAL},
    /* Of the server: where they belong they were found at the beginning. */
    {"GATEWAY_INTERFACE", UNUSUAL},       {"SERVER_SOFTWARE", UNUSUAL},       {"SERVER_PROTOCOL", UNUSUAL},
    {"REDIRECT_STATUS", UNUSUAL},         {"DOCUMENT_ROOT", UNUSUAL},         {"SERVER_ADDR", UNUSUAL},
    {"SERVER_NAME", UNUSUAL},             {"SERVER_PORT", UNUSUAL},           {"REQUEST_SCHEME", UNUSUAL},
    {"HTTPS", UNUSUAL},                   {"DOCUMENT_URI", SKIPPED},          {"REMOTE_HOST", SKIPPED},
    {"UNIQUE_ID", SKIPPED},               {"HTTP_ACCEPT", FIELD},             {"HTTP_ACCEPT_ENCODING", FIELD},
    {"HTTP_ACCEPT_LANGUAGE", FIELD},      {"HTTP_AUTHORIZATION", FIELD},      {"HTTP_CACHE_CONTROL", FIELD},
    {"HTTP_COOKIE", FIELD},               {"HTTP_IF_MODIFIED_SINCE", FIELD},  {"HTTP_IF_NONE_MATCH", FIELD},
    {"HTTP_ORIGIN", FIELD},               {"HTTP_RANGE", FIELD},              {"HTTP_REFERER", FIELD},
    {"HTTP_USER_AGENT", FIELD},           {"HTTP_X_FORWARDED_FOR", FIELD},    {"HTTP_X_FORWARDED_PROTO", FIELD},
    {"HTTP_X_REQUESTED_WITH", FIELD},
};

#define LONGEST_NAME 46 /* that is remembered */
#define LONGEST_VALUE 256
#define NAMES 256 /* a power of two; a quarter of them is used at most by names that clients chose */

typedef struct {
    unsigned char size;
    char text[LONGEST_NAME];
    char kind;
    char is_secret; /* its values are not kept */
    PyObject *field; /* the header's name, of a FIELD or HTTP_HOST and such */
    PyObject *last; /* (field, value): the last one, which the next request often has as well */
    const char *value; /* of it */
    Py_ssize_t value_size;
} Name;

static Name names[NAMES];
static int names_used;

static Name *
find_name(const char *text, Py_ssize_t size)
{
    uint64_t hash = (uint64_t)size, word;
    Py_ssize_t at = 0;
    for (; size - at >= 8; at += 8) {
        memcpy(&word, text + at, 8);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    if (at < size) {
        word = 0;
        memcpy(&word, text + at, size - at);
        hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 32;
    }
    Name *name = &names[hash & (NAMES - 1)];
    while (name->size != 0 && !(name->size == size && memcmp(name->text, text, size) == 0))
        name = name == &names[NAMES - 1] ? names : name + 1;
    return name; /* the one, or where it would stand */
}

/* The name of the header that a variable carries: behind "HTTP_", in lower case
 * and with dashes. */
static PyObject *
field_of(const char *text, Py_ssize_t size)
{
    PyObject *field = PyBytes_FromStringAndSize(NULL, size);
    if (field == NULL)
        return NULL;
    char *to = PyBytes_AsString(field);
    for (Py_ssize_t i = 0; i < size; i++)
        to[i] = text[i] == '_' ? '-' : text[i] >= 'A' && text[i] <= 'Z' ? text[i] + 32 : text[i];
    return field;
}

static int
kind_of(const char *text, Py_ssize_t size)
{
    if (size > 5 && memcmp(text, "HTTP_", 5) == 0)
        return FIELD;
    return size >= 4 && memcmp(text, "SSL_", 4) == 0 ? OF_TLS : SKIPPED;
}

/* Puts a name in its place in the table. */
static int
remember_name(Name *name, const char *text, Py_ssize_t size, int kind)
{
    if (kind == FIELD || kind == HTTP_HOST)
        name->field = field_of(text + 5, size - 5);
    else if (kind == CONTENT_TYPE || kind == CONTENT_LENGTH)
        name->field = field_of(text, size);
    if (name->field == NULL && PyErr_Occurred())
        return -1;
    memcpy(name->text, text, size);
    name->size = (unsigned char)size;
    name->kind = (char)kind;
    name->is_secret = kind == FIELD && (strncmp(text, "HTTP_COOKIE", size) == 0 || strncmp(text, "HTTP_AUTHORIZATION", size) == 0);
    names_used++;
    return 0;
}

/* The pair of a header. */
static PyObject *
header(Name *name, PyObject *field, const char *value, Py_ssize_t size)
{
    if (name != NULL && name->last != NULL && name->value_size == size && memcmp(name->value, value, size) == 0) {
        Py_INCREF(name->last);
        return name->last;
    }
    PyObject *bytes = PyBytes_FromStringAndSize(value, size);
    PyObject *pair = bytes == NULL ? NULL : PyTuple_Pack(2, field, bytes);
    Py_XDECREF(bytes);
    if (pair != NULL && name != NULL && size <= LONGEST_VALUE && !name->is_secret) {
        PyObject *before = name->last;
        Py_INCREF(pair);
        name->last = pair;
        name->value = PyBytes_AsString(bytes); /* which the pair keeps */
        name->value_size = size;
        Py_XDECREF(before);
    }
    return pair;
}

/* Sets an item, whose reference is taken over; it may be NULL. */
static int
set_item(PyObject *dict, PyObject *key, PyObject *value)
{
    int failed = value == NULL || PyDict_SetItem(dict, key, value) < 0;
    Py_XDECREF(value);
    return failed ? -1 : 0;
}

#define BEGINNINGS 8 /* of _scope.py */

/* The fields of Scopes, and what it has learnt. */
typedef struct {
    PyObject_HEAD
    PyObject *root, *state;
    int count;
    struct {
        PyObject *text; /* how the parameters begin */
        PyObject *template; /* the scope, as far as that says */
        char is_secure, trails;
    } beginnings[BEGINNINGS];
} ScopesFields;

static PyMemberDef scopes_members[] = {
    {"_root", T_OBJECT, offsetof(ScopesFields, root), 0, NULL},
    {"state", T_OBJECT, offsetof(ScopesFields, state), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static int
scopes_traverse(PyObject *self, visitproc visit, void *arg)
{
    ScopesFields *scopes = (ScopesFields *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(scopes->state);
    for (int i = 0; i < scopes->count; i++)
        Py_VISIT(scopes->beginnings[i].template);
    return 0;
}

static int
scopes_clear(PyObject *self)
{
    ScopesFields *scopes = (ScopesFields *)self;
    clear(&scopes->root);
    clear(&scopes->state);
    while (scopes->count > 0) {
        int i = --scopes->count;
        clear(&scopes->beginnings[i].text);
        clear(&scopes->beginnings[i].template);
    }
    return 0;
}

static void
scopes_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    scopes_clear(self);
    release(self);
}

/* Has _learn say how the parameters begin, and remembers it. Returns its index,
 * -1 with an exception. */
static int
learn_beginning(ScopesFields *scopes, PyObject *params)
{
    PyObject *learnt = PyObject_CallMethodObjArgs((PyObject *)scopes, s_learn, params, NULL);
    if (learnt == NULL)
        return -1;
    PyObject *text, *variables, *template;
    int is_secure, trails, index = -1;
    if (!PyTuple_Check(learnt))
        PyErr_SetString(PyExc_TypeError, "_learn has to return a tuple");
    else if (PyArg_ParseTuple(learnt, "S(OO!pp)", &text, &variables, &PyDict_Type, &template, &is_secure, &trails)) {
        while (scopes->count >= BEGINNINGS) {
            int i = --scopes->count;
            clear(&scopes->beginnings[i].text);
            clear(&scopes->beginnings[i].template);
        }
        index = scopes->count;
        Py_INCREF(text);
        Py_INCREF(template);
        scopes->beginnings[index].text = text;
        scopes->beginnings[index].template = template;
        scopes->beginnings[index].is_secure = (char)is_secure;
        scopes->beginnings[index].trails = (char)trails;
        scopes->count++;
    }
    Py_DECREF(learnt);
    return index;
}

#define MOST_FIELDS 100

typedef struct {
    const char *text;
    Py_ssize_t size;
    Name *name; /* NULL when it is not in the table */
} Value;

static PyObject *
bytes_of(Value *value)
{
    if (value->size == 0) {
        Py_INCREF(no_bytes);
        return no_bytes;
    }
    return PyBytes_FromStringAndSize(value->text, value->size);
}

static PyObject *
make_method(Value *value)
{
    static const char *const usual[] = {"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"};
    for (size_t i = 0; i < sizeof usual / sizeof *usual; i++)
        if ((size_t)value->size == strlen(usual[i]) && memcmp(value->text, usual[i], value->size) == 0)
            return PyUnicode_InternFromString(usual[i]);
    return PyUnicode_DecodeLatin1(value->text, value->size, NULL);
}

/* The list of headers: first host, content-type and content-length. */
static PyObject *
make_headers(Value *variables, Value *fields, PyObject **own, int count)
{
    static const int first[] = {HTTP_HOST, CONTENT_TYPE, CONTENT_LENGTH};
    int ahead = 0;
    for (int i = 0; i < 3; i++) {
        Value *value = &variables[first[i]];
        ahead += value->text != NULL && (value->size != 0 || first[i] == HTTP_HOST);
    }
    PyObject *list = PyList_New(ahead + count);
    if (list == NULL)
        return NULL;
    int at = 0;
    for (int i = 0; i < 3 + count; i++) {
        Value *value = i < 3 ? &variables[first[i]] : &fields[i - 3];
        if (i < 3 && (value->text == NULL || (value->size == 0 && first[i] != HTTP_HOST)))
            continue;
        PyObject *pair = header(value->name, value->name != NULL ? value->name->field : own[i - 3], value->text, value->size);
        if (pair == NULL || PyList_SetItem(list, at++, pair) < 0) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

/* The name of the client, and its port. Returns NULL without an exception when
 * the port is an unusual number. */
static PyObject *
make_client(Value *address, Value *port)
{
    if (address->text == NULL || address->size == 0) {
        Py_INCREF(Py_None);
        return Py_None;
    }
    long number = 0;
    if (port->text != NULL) {
        if (port->size > 9)
            return NULL;
        for (Py_ssize_t i = 0; i < port->size; i++) {
            if (port->text[i] < '0' || port->text[i] > '9')
                return NULL;
            number = number * 10 + (port->text[i] - '0');
        }
    }
    PyObject *text = PyUnicode_DecodeLatin1(address->text, address->size, NULL);
    PyObject *object = text == NULL ? NULL : PyLong_FromLong(number);
    PyObject *client = object == NULL ? NULL : PyTuple_Pack(2, text, object);
    Py_XDECREF(text);
    Py_XDECREF(object);
    return client;
}

static PyObject *
make_extensions(int trails, int is_secure, PyObject *of_tls)
{
    PyObject *extensions = PyDict_New();
    if (extensions == NULL || set_item(extensions, s_early_hint, PyDict_New()) < 0
        || set_item(extensions, s_pathsend, PyDict_New()) < 0 || (trails && set_item(extensions, s_http_trailers, PyDict_New()) < 0)) {
        Py_XDECREF(extensions);
        return NULL;
    }
    if (is_secure) {
        PyObject *none = of_tls == NULL ? PyDict_New() : NULL;
        PyObject *get = of_tls == NULL && none == NULL ? NULL : PyObject_GetAttr(of_tls == NULL ? none : of_tls, s_get);
        PyObject *description = get == NULL ? NULL : PyObject_CallFunctionObjArgs(describe_tls, get, NULL);
        Py_XDECREF(none);
        Py_XDECREF(get);
        if (set_item(extensions, s_tls, description) < 0) {
            Py_DECREF(extensions);
            return NULL;
        }
    }
    return extensions;
}

/* Fills the scope in. Returns -1 with an exception, or 1 without one when the
 * request is unusual. */
static int
fill_scope(ScopesFields *scopes, PyObject *scope, Value *variables, int trails, int is_secure, PyObject *of_tls)
{
    Value *root = &variables[SCRIPT_NAME], *path = &variables[PATH_INFO], *uri = &variables[REQUEST_URI], *query = &variables[QUERY_STRING];
    if (uri->text == NULL || uri->size == 0 || uri->text[0] != '/')
        return 1;
    PyObject *client = make_client(&variables[REMOTE_ADDR], &variables[REMOTE_PORT]);
    if (client == NULL)
        return PyErr_Occurred() ? -1 : 1;
    if (set_item(scope, s_client, client) < 0)
        return -1;
    if (variables[REQUEST_METHOD].text != NULL && set_item(scope, s_method, make_method(&variables[REQUEST_METHOD])) < 0)
        return -1;
    PyObject *text;
    if (root->size == 0) {
        text = PyUnicode_DecodeUTF8(path->text == NULL ? "" : path->text, path->size, "replace");
    }
    else {
        if (set_item(scope, s_root_path, PyUnicode_DecodeUTF8(root->text, root->size, "replace")) < 0)
            return -1;
        PyObject *whole = PyBytes_FromStringAndSize(NULL, root->size + path->size);
        if (whole == NULL)
            return -1;
        char *to = PyBytes_AsString(whole);
        memcpy(to, root->text, root->size);
        if (path->size != 0)
            memcpy(to + root->size, path->text, path->size);
        text = PyUnicode_DecodeUTF8(to, root->size + path->size, "replace");
        Py_DECREF(whole);
    }
    if (set_item(scope, s_path, text) < 0)
        return -1;
    const char *mark = memchr(uri->text, '?', uri->size);
    Value raw = {uri->text, mark == NULL ? uri->size : mark - uri->text, NULL};
    if (set_item(scope, s_raw_path, bytes_of(&raw)) < 0 || set_item(scope, s_query_string, bytes_of(query)) < 0
        || set_item(scope, s_state, PyDict_Copy(scopes->state)) < 0
        || set_item(scope, s_extensions, make_extensions(trails, is_secure, of_tls)) < 0)
        return -1;
    return 0;
}

/* Reads the parameters from pos on. Returns -1 with an exception, or 1 without
 * one when they are unusual. own are the names of headers that are not in the
 * table. */
static int
read_parameters(const unsigned char *block, Py_ssize_t size, Py_ssize_t pos, Value *variables, Value *fields, PyObject **own,
                int *count, PyObject **of_tls)
{
    while (pos < size) {
        Py_ssize_t name_size = read_length(block, size, &pos);
        Py_ssize_t value_size = name_size < 0 ? -1 : read_length(block, size, &pos);
        if (value_size < 0 || name_size > size - pos || value_size > size - pos - name_size)
            return 1; /* the Python code complains of it */
        const char *text = (const char *)block + pos;
        Value value = {text + name_size, value_size, NULL};
        pos += name_size + value_size;
        int kind;
        if (name_size == 0)
            continue;
        if (name_size <= LONGEST_NAME) {
            Name *name = find_name(text, name_size);
            if (name->size == 0 && names_used < NAMES / 2 && remember_name(name, text, name_size, kind_of(text, name_size)) < 0)
                return -1;
            if (name->size != 0)
                value.name = name;
        }
        kind = value.name != NULL ? value.name->kind : kind_of(text, name_size);
        if (kind < VARIABLES) {
            variables[kind] = value;
        }
        else if (kind == FIELD) {
            if (*count == MOST_FIELDS)
                return 1;
            own[*count] = NULL;
            if (value.name == NULL && (own[*count] = field_of(text + 5, name_size - 5)) == NULL)
                return -1;
            fields[(*count)++] = value;
        }
        else if (kind == OF_TLS) {
            if (*of_tls == NULL && (*of_tls = PyDict_New()) == NULL)
                return -1;
            PyObject *name = PyBytes_FromStringAndSize(text, name_size);
            int failed = name == NULL || set_item(*of_tls, name, PyBytes_FromStringAndSize(value.text, value.size)) < 0;
            Py_XDECREF(name);
            if (failed)
                return -1;
        }
        else if (kind == UNUSUAL) {
            return 1;
        }
    }
    return 0;
}

/* make(request): the scope. Raises ProtocolError. */
static PyObject *
scopes_make(PyObject *self, PyObject *argument)
{
    ScopesFields *scopes = (ScopesFields *)self;
    RequestFields *request = (RequestFields *)argument;
    char *text;
    Py_ssize_t size, root_size;
    if (!PyObject_TypeCheck(argument, RequestType) || request->role != 1 || request->params == NULL || !PyBytes_Check(request->params)
        || scopes->root == NULL || !PyBytes_Check(scopes->root) || scopes->state == NULL || !PyDict_Check(scopes->state))
        return PyObject_CallMethodObjArgs(self, s_make, argument, NULL);
    if (PyBytes_AsStringAndSize(scopes->root, &text, &root_size) < 0 || PyBytes_AsStringAndSize(request->params, &text, &size) < 0)
        return NULL;
    PyObject *params = request->params; /* its bytes are looked at to the end */
    int index;
    Py_ssize_t start = 0;
    for (index = 0; index < scopes->count; index++) {
        char *beginning;
        if (PyBytes_AsStringAndSize(scopes->beginnings[index].text, &beginning, &start) < 0)
            return NULL;
        if (start <= size && memcmp(beginning, text, start) == 0)
            break;
    }
    if (index == scopes->count) {
        if ((index = learn_beginning(scopes, request->params)) < 0)
            return NULL;
        start = PyBytes_Size(scopes->beginnings[index].text);
    }
    Py_INCREF(params);
    Value variables[VARIABLES], fields[MOST_FIELDS];
    memset(variables, 0, sizeof variables);
    PyObject *own[MOST_FIELDS]; /* as many as there are fields */
    PyObject *of_tls = NULL, *scope = NULL;
    int count = 0;
    int unusual = read_parameters((const unsigned char *)text, size, start, variables, fields, own, &count, &of_tls);
    if (unusual == 0 && root_size != 0 && variables[SCRIPT_NAME].size == 0)
        unusual = 1;
    if (unusual == 0) {
        scope = PyDict_Copy(scopes->beginnings[index].template);
        if (scope == NULL || set_item(scope, s_headers, make_headers(variables, fields, own, count)) < 0)
            unusual = -1;
        else
            unusual = fill_scope(scopes, scope, variables, scopes->beginnings[index].trails, scopes->beginnings[index].is_secure, of_tls);
    }
    for (int i = 0; i < count; i++)
        Py_XDECREF(own[i]);
    Py_XDECREF(of_tls);
    Py_DECREF(params);
    if (unusual != 0)
        clear(&scope);
    return unusual > 0 ? PyObject_CallMethodObjArgs(self, s_make, argument, NULL) : scope;
}

static PyMethodDef scopes_methods[] = {
    {"make", scopes_make, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot scopes_slots[] = {
    {Py_tp_new, loop_new},           {Py_tp_dealloc, scopes_dealloc}, {Py_tp_traverse, scopes_traverse},
    {Py_tp_clear, scopes_clear},     {Py_tp_members, scopes_members}, {Py_tp_methods, scopes_methods},
    {0, NULL},
};

static PyType_Spec scopes_spec = {
    "gatecrew_worker._speed.Scopes", sizeof(ScopesFields), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, scopes_slots,
};

/* The fields of Exchange. It is the application's send itself. */
typedef struct {
    PyObject_HEAD
    LoopFields *loop;
    RequestFields *request;
    PyObject *trailers, *head, *length;
    long long written;
    char complete, started, awaits_trailers, told, is_head, can_trail, trails, head_sent, body_allowed, cut, whole;
} ExchangeFields;

static PyTypeObject *ReceiveType, *StepType;

static PyMemberDef exchange_members[] = {
    {"complete", T_BOOL, offsetof(ExchangeFields, complete), 0, NULL},
    {"started", T_BOOL, offsetof(ExchangeFields, started), 0, NULL},
    {"awaits_trailers", T_BOOL, offsetof(ExchangeFields, awaits_trailers), 0, NULL},
    {"told", T_BOOL, offsetof(ExchangeFields, told), 0, NULL},
    {"_loop", T_OBJECT, offsetof(ExchangeFields, loop), READONLY, NULL},
    {"_request", T_OBJECT, offsetof(ExchangeFields, request), READONLY, NULL},
    {"_is_head", T_BOOL, offsetof(ExchangeFields, is_head), 0, NULL},
    {"_can_trail", T_BOOL, offsetof(ExchangeFields, can_trail), 0, NULL},
    {"_trails", T_BOOL, offsetof(ExchangeFields, trails), 0, NULL},
    {"_trailers", T_OBJECT, offsetof(ExchangeFields, trailers), 0, NULL},
    {"_head", T_OBJECT, offsetof(ExchangeFields, head), 0, NULL},
    {"_head_sent", T_BOOL, offsetof(ExchangeFields, head_sent), 0, NULL},
    {"_body_allowed", T_BOOL, offsetof(ExchangeFields, body_allowed), 0, NULL},
    {"_length", T_OBJECT, offsetof(ExchangeFields, length), 0, NULL},
    {"_written", T_LONGLONG, offsetof(ExchangeFields, written), 0, NULL},
    {"_cut", T_BOOL, offsetof(ExchangeFields, cut), 0, NULL},
    {"_whole", T_BOOL, offsetof(ExchangeFields, whole), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

/* Exchange(loop, request, scope). */
static PyObject *
exchange_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    PyObject *loop, *request, *scope;
    if ((kwargs != NULL && PyDict_Size(kwargs) != 0)
        || !PyArg_ParseTuple(args, "O!O!O!", LoopType, &loop, RequestType, &request, &PyDict_Type, &scope)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "an exchange takes no keyword arguments");
        return NULL;
    }
    PyObject *method = PyDict_GetItemWithError(scope, s_method);
    PyObject *extensions = method == NULL ? NULL : PyDict_GetItemWithError(scope, s_extensions);
    int trails = extensions == NULL ? -1 : PySequence_Contains(extensions, s_http_trailers);
    if (trails < 0 || !PyUnicode_Check(method)) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "that is no http scope");
        return NULL;
    }
    ExchangeFields *exchange = (ExchangeFields *)PyType_GenericAlloc(type, 0);
    if (exchange == NULL)
        return NULL;
    Py_INCREF(loop);
    exchange->loop = (LoopFields *)loop;
    Py_INCREF(request);
    exchange->request = (RequestFields *)request;
    Py_INCREF(no_items);
    exchange->trailers = no_items;
    Py_INCREF(no_bytes);
    exchange->head = no_bytes;
    Py_INCREF(Py_None);
    exchange->length = Py_None;
    exchange->body_allowed = 1;
    exchange->can_trail = trails != 0;
    exchange->is_head = PyUnicode_CompareWithASCIIString(method, "HEAD") == 0;
    return (PyObject *)exchange;
}

static int
exchange_traverse(PyObject *self, visitproc visit, void *arg)
{
    ExchangeFields *exchange = (ExchangeFields *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(exchange->loop);
    Py_VISIT(exchange->request);
    Py_VISIT(exchange->trailers);
    return 0;
}

static int
exchange_clear(PyObject *self)
{
    /* Neither loop nor request: send and receive need them to the end, and
     * refer to nothing that would not let go of them. */
    clear(&((ExchangeFields *)self)->trailers);
    return 0;
}

static void
exchange_dealloc(PyObject *self)
{
    ExchangeFields *exchange = (ExchangeFields *)self;
    PyObject_GC_UnTrack(self);
    Py_XDECREF(exchange->loop);
    Py_XDECREF(exchange->request);
    clear(&exchange->trailers);
    clear(&exchange->head);
    clear(&exchange->length);
    release(self);
}

/* RFC 9110: what may stand in the name of a header (1), and in its value (2). */
static unsigned char of_header[256];

static void
prepare_of_header(void)
{
    for (int c = 0; c < 256; c++) {
        int is_token = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c != 0 && c < 128 && strchr("!#$%&'*+.^_`|~-", c) != NULL);
        int is_control = (c < 32 && c != 9) || c == 127;
        of_header[c] = (unsigned char)(is_token | (!is_control) << 1);
    }
}

/* The place of a name among those that the answer doesn't simply pass on: a
 * length (0), a status, or what belongs to the connection. -1 for all others. */
static int
special_name(const char *name, Py_ssize_t size)
{
    static const char *const special[] = {"content-length", "connection", "keep-alive", "proxy-authenticate", "proxy-authorization",
                                          "status", "te", "trailers", "transfer-encoding", "upgrade"};
    switch (size) {
    case 2: case 6: case 7: case 8: case 10: case 14: case 17: case 18: case 19:
        for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
            if (strlen(special[i]) != (size_t)size)
                continue;
            Py_ssize_t at = 0;
            while (at < size && (name[at] >= 'A' && name[at] <= 'Z' ? name[at] + 32 : name[at]) == special[i][at])
                at++;
            if (at == size)
                return (int)i;
        }
    }
    return -1;
}

#define LONGEST_HEAD 4096

/* Encodes a head as encode_head does. Returns its size, -1 for an unusual one.
 * length is the Content-Length. */
static Py_ssize_t
encode_head(char *to, PyObject *first, PyObject *headers, long long *length)
{
    char *text;
    Py_ssize_t size;
    if (PyBytes_AsStringAndSize(first, &text, &size) < 0 || size > LONGEST_HEAD)
        return -1;
    memcpy(to, text, size);
    int is_list = headers != NULL && PyList_CheckExact(headers);
    if (headers != NULL && !is_list && !PyTuple_CheckExact(headers))
        return -1;
    Py_ssize_t count = headers == NULL ? 0 : is_list ? PyList_Size(headers) : PyTuple_Size(headers);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *item = is_list ? PyList_GetItem(headers, i) : PyTuple_GetItem(headers, i);
        PyObject *name, *value;
        if (item != NULL && PyTuple_CheckExact(item) && PyTuple_Size(item) == 2) {
            name = PyTuple_GetItem(item, 0);
            value = PyTuple_GetItem(item, 1);
        }
        else if (item != NULL && PyList_CheckExact(item) && PyList_Size(item) == 2) {
            name = PyList_GetItem(item, 0);
            value = PyList_GetItem(item, 1);
        }
        else {
            return -1;
        }
        char *name_text, *value_text;
        Py_ssize_t name_size, value_size;
        if (!PyBytes_CheckExact(name) || !PyBytes_CheckExact(value) || PyBytes_AsStringAndSize(name, &name_text, &name_size) < 0
            || PyBytes_AsStringAndSize(value, &value_text, &value_size) < 0)
            return -1;
        if (name_size == 0 || name_size > LONGEST_HEAD || value_size > LONGEST_HEAD || size + name_size + value_size + 4 > LONGEST_HEAD)
            return -1;
        int special = special_name(name_text, name_size);
        if (special == 0 && *length < 0 && value_size > 0 && value_size <= 18) {
            long long number = 0;
            for (Py_ssize_t at = 0; at < value_size; at++) {
                if (value_text[at] < '0' || value_text[at] > '9')
                    return -1;
                number = number * 10 + (value_text[at] - '0');
            }
            *length = number;
            name_text = "Content-Length";
        }
        else if (special >= 0) {
            return -1;
        }
        for (Py_ssize_t at = 0; at < name_size; at++) {
            if (!(of_header[(unsigned char)name_text[at]] & 1))
                return -1;
            to[size++] = name_text[at];
        }
        to[size++] = ':';
        to[size++] = ' ';
        for (Py_ssize_t at = 0; at < value_size; at++) {
            if (!(of_header[(unsigned char)value_text[at]] & 2))
                return -1;
            to[size++] = value_text[at];
        }
        to[size++] = '\r';
        to[size++] = '\n';
    }
    return size;
}

/* Returns a new reference to an item, NULL without an exception when there is
 * none. */
static PyObject *
get_item(PyObject *dict, PyObject *key)
{
    PyObject *item = PyDict_GetItemWithError(dict, key);
    if (item == NULL)
        PyErr_Clear(); /* the Python code meets it again */
    else
        Py_INCREF(item);
    return item;
}

/* http.response.start. As the other messages: 1 when it has been done, 0 when
 * it is left to Python, -1 with an exception. */
static int
start_answer(ExchangeFields *exchange, PyObject *status, PyObject *headers, PyObject *trailers)
{
    if (exchange->started || is_gone(exchange->loop, exchange->request) || trailers != NULL)
        return 0;
    PyObject *first = status != NULL && status_lines != NULL && PyLong_CheckExact(status) ? PyDict_GetItemWithError(status_lines, status) : NULL;
    if (first == NULL || !PyBytes_CheckExact(first))
        return 0;
    char to[LONGEST_HEAD];
    long long length = -1;
    Py_ssize_t size = encode_head(to, first, headers, &length);
    if (size < 0)
        return 0;
    PyObject *head = PyBytes_FromStringAndSize(to, size);
    if (head == NULL)
        return -1;
    long number = PyLong_AsLong(status);
    if (length >= 0) {
        PyObject *object = PyLong_FromLongLong(length);
        if (object == NULL) {
            Py_DECREF(head);
            return -1;
        }
        clear(&exchange->length);
        exchange->length = object;
    }
    clear(&exchange->head);
    exchange->head = head;
    exchange->trails = 0;
    exchange->body_allowed = number != 204 && number != 304;
    exchange->started = 1;
    return 1;
}

static int
exchange_start(ExchangeFields *exchange, PyObject *message)
{
    PyObject *status = get_item(message, s_status);
    PyObject *headers = get_item(message, s_headers);
    PyObject *trailers = PyDict_Size(message) > 2 + (headers != NULL) || status == NULL ? get_item(message, s_trailers) : NULL;
    int done = start_answer(exchange, status, headers, trailers);
    Py_XDECREF(status);
    Py_XDECREF(headers);
    Py_XDECREF(trailers);
    return done;
}

/* Ends an answer whose last record has been appended to what is sent. */
static int
exchange_end(LoopFields *loop, RequestFields *request)
{
    request->ended = 1;
    if (forget_request(loop, request) < 0)
        return -1;
    if (!is_empty(request->waiters) && call_method((PyObject *)request, s_wake) < 0)
        return -1;
    int draining = is_attribute_true(loop->connection, s_draining);
    if (draining > 0)
        return call_method((PyObject *)loop, s_stop_if_done);
    return draining;
}

/* Sends a part of the body, or the rest of it, if that can be sent at once. */
static int
send_body(ExchangeFields *exchange, PyObject *body, int is_last)
{
    LoopFields *loop = exchange->loop;
    RequestFields *request = exchange->request;
    if (!exchange->started || exchange->complete || exchange->awaits_trailers || exchange->trails || exchange->is_head
        || !exchange->body_allowed || exchange->cut || request->aborted || request->ended || loop->broken || !is_empty(request->unsent))
        return 0;
    if (loop->out == NULL || !PyList_Check(loop->out) || loop->requests == NULL || !PyDict_Check(loop->requests) || loop->connection == NULL
        || exchange->head == NULL || !PyBytes_Check(exchange->head) || exchange->length == NULL)
        return 0;
    char *text, *head = NULL;
    Py_ssize_t size, head_size = 0, told = 0;
    if (PyBytes_AsStringAndSize(body, &text, &size) < 0)
        return -1;
    if (exchange->length != Py_None) {
        long long length = PyLong_Check(exchange->length) ? PyLong_AsLongLong(exchange->length) : -1;
        if (length < 0) {
            PyErr_Clear();
            return 0;
        }
        if (is_last ? exchange->written + size != length : exchange->written + size > length)
            return 0;
    }
    char line[64] = "\r\n";
    if (!exchange->head_sent) {
        if (PyBytes_AsStringAndSize(exchange->head, &head, &head_size) < 0)
            return -1;
        told = 2;
        if (is_last && exchange->length == Py_None)
            told = PyOS_snprintf(line, sizeof line, "Content-Length: %lld\r\n\r\n", (long long)size);
    }
    if (size > LARGEST_RECORD)
        return 0;
    Py_ssize_t whole = head_size + told + size;
    if (whole > LARGEST_RECORD || whole > request->granted - request->sent)
        return 0;
    if (whole == 0 && !is_last)
        return 1;
    PyObject *payload = PyBytes_FromStringAndSize(NULL, (whole != 0 ? 8 + whole : 0) + (is_last ? 16 : 0));
    if (payload == NULL)
        return -1;
    unsigned char *to = (unsigned char *)PyBytes_AsString(payload);
    unsigned char high = (unsigned char)(request->id >> 8), low = (unsigned char)request->id;
    if (whole != 0) {
        const unsigned char record[8] = {1, 6, high, low, (unsigned char)(whole >> 8), (unsigned char)whole, 0, 0};
        memcpy(to, record, 8);
        to += 8;
        if (head_size != 0)
            memcpy(to, head, head_size);
        memcpy(to + head_size, line, told);
        memcpy(to + head_size + told, text, size);
        to += whole;
    }
    if (is_last) {
        const unsigned char record[16] = {1, 3, high, low, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
        memcpy(to, record, 16);
    }
    int failed = PyList_Append(loop->out, payload) < 0;
    Py_DECREF(payload);
    if (failed)
        return -1;
    exchange->written += size;
    exchange->head_sent = 1;
    request->sent += whole;
    if (is_last) {
        exchange->complete = 1;
        if (exchange_end(loop, request) < 0)
            return -1;
    }
    if (!loop->holding && call_method((PyObject *)loop, s_release_soon) < 0)
        return -1;
    return 1;
}

/* http.response.body. */
static int
exchange_body(ExchangeFields *exchange, PyObject *message)
{
    PyObject *body = get_item(message, s_body);
    PyObject *more = get_item(message, s_more_body);
    int done = 0;
    if ((body == NULL || PyBytes_CheckExact(body)) && (more == NULL || more == Py_False || more == Py_True))
        done = send_body(exchange, body == NULL ? no_bytes : body, more != Py_True);
    Py_XDECREF(body);
    Py_XDECREF(more);
    return done;
}

/* Whether a text is the one that is given, which is seldom the same object. */
static int
is_text(PyObject *object, PyObject *text)
{
    return object == text || PyUnicode_Compare(object, text) == 0;
}

static int
exchange_send(ExchangeFields *exchange, PyObject *message)
{
    if (!PyDict_CheckExact(message))
        return 0;
    PyObject *type = get_item(message, s_type);
    int done = 0;
    if (type != NULL && PyUnicode_CheckExact(type)) {
        if (is_text(type, s_response_body))
            done = exchange_body(exchange, message);
        else if (is_text(type, s_response_start))
            done = exchange_start(exchange, message);
    }
    Py_XDECREF(type);
    if (done == 0)
        PyErr_Clear(); /* which Python finds again */
    return done;
}

/* receive(), when there is a whole body that can be had at once. */
static int
exchange_receive(ExchangeFields *exchange, PyObject **event)
{
    RequestFields *request = exchange->request;
    if (exchange->whole || exchange->complete || !request->input_ended || request->input == NULL || request->input == Py_None)
        return 0;
    PyObject *body;
    if (is_empty(request->input)) {
        Py_INCREF(no_bytes);
        body = no_bytes;
    }
    else {
        if (PyObject_Size(request->input) != 1) {
            PyErr_Clear();
            return 0;
        }
        body = PyObject_CallMethodObjArgs(request->input, s_popleft, NULL);
        Py_ssize_t size = body == NULL ? -1 : PyBytes_Size(body);
        if (size < 0) {
            Py_XDECREF(body);
            return -1;
        }
        request->input_read += size;
    }
    exchange->whole = 1;
    PyObject *dict = PyDict_New();
    int failed = dict == NULL || PyDict_SetItem(dict, s_type, s_request) < 0 || PyDict_SetItem(dict, s_body, body) < 0
                 || PyDict_SetItem(dict, s_more_body, Py_False) < 0;
    Py_DECREF(body);
    if (failed) {
        Py_XDECREF(dict);
        return -1;
    }
    *event = dict;
    return 1;
}

/* What send() and receive() return: a coroutine. It is at its end as soon as it
 * is awaited, or hands over to the one of Python. */
typedef struct {
    PyObject_HEAD
    ExchangeFields *exchange;
    PyObject *message; /* NULL of receive() */
    PyObject *value; /* the event that was received */
    PyObject *rest; /* the iterator of Python's coroutine, when it is run as a task of its own */
    char state;
} Step;

enum { NEW, DONE, RESTING, OVER };

static PyObject *
make_step(ExchangeFields *exchange, PyObject *message)
{
    Step *step = (Step *)PyType_GenericAlloc(StepType, 0);
    if (step == NULL)
        return NULL;
    Py_INCREF(exchange);
    step->exchange = exchange;
    Py_XINCREF(message);
    step->message = message;
    return (PyObject *)step;
}

static PyObject *
not_from_python(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    (void)type;
    PyErr_SetString(PyExc_TypeError, "only the C extension makes these");
    return NULL;
}

/* Returns the iterator of the coroutine of Python that does the same. */
static PyObject *
step_in_python(Step *step)
{
    PyObject *coroutine = PyObject_CallMethodObjArgs((PyObject *)step->exchange, step->message == NULL ? s_receive : s_send, step->message, NULL);
    if (coroutine == NULL)
        return NULL;
    PyObject *iterator = PyObject_CallMethodObjArgs(coroutine, s_await, NULL);
    Py_DECREF(coroutine);
    return iterator;
}

/* Begins: 1 when it is done, 0 when it is left to Python, -1 with an exception. */
static int
step_begin(Step *step)
{
    if (step->state != NEW) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return -1;
    }
    step->state = OVER;
    int done = step->message != NULL ? exchange_send(step->exchange, step->message) : exchange_receive(step->exchange, &step->value);
    if (done > 0)
        step->state = DONE;
    return done;
}

static PyObject *
step_await(PyObject *self)
{
    int done = step_begin((Step *)self);
    if (done == 0)
        return step_in_python((Step *)self);
    if (done < 0)
        return NULL;
    Py_INCREF(self);
    return self;
}

/* Ends what is done, with its value. */
static PyObject *
step_end(Step *step)
{
    step->state = OVER;
    if (step->value != NULL) {
        PyErr_SetObject(PyExc_StopIteration, step->value);
        clear(&step->value);
    }
    return NULL;
}

/* send(value), also of the task that it may be. */
static PyObject *
step_send(PyObject *self, PyObject *value)
{
    Step *step = (Step *)self;
    if (step->state == NEW || step->state == OVER) {
        int done = step_begin(step);
        if (done < 0)
            return NULL;
        if (done == 0) {
            step->rest = step_in_python(step);
            if (step->rest == NULL)
                return NULL;
            step->state = RESTING;
        }
    }
    if (step->state == DONE) {
        step_end(step);
        if (!PyErr_Occurred())
            PyErr_SetNone(PyExc_StopIteration);
        return NULL;
    }
    PyObject *result = PyObject_CallMethod(step->rest, "send", "O", value);
    if (result == NULL) {
        step->state = OVER;
        clear(&step->rest);
    }
    return result;
}

static PyObject *
step_next(PyObject *self)
{
    if (((Step *)self)->state == DONE)
        return step_end((Step *)self);
    return step_send(self, Py_None);
}

/* throw(type, value=None, traceback=None). */
static PyObject *
step_throw(PyObject *self, PyObject *args)
{
    Step *step = (Step *)self;
    if (step->state == DONE)
        step->state = OVER;
    if (step->state == OVER) {
        PyErr_SetString(PyExc_RuntimeError, "cannot reuse already awaited coroutine");
        return NULL;
    }
    if (step->state == NEW) {
        step->state = OVER;
        step->rest = step_in_python(step);
        if (step->rest == NULL)
            return NULL;
        step->state = RESTING;
    }
    PyObject *throw = PyObject_GetAttrString(step->rest, "throw");
    PyObject *result = throw == NULL ? NULL : PyObject_CallObject(throw, args);
    Py_XDECREF(throw);
    if (result == NULL) {
        step->state = OVER;
        clear(&step->rest);
    }
    return result;
}

static PyObject *
step_close(PyObject *self, PyObject *ignored)
{
    (void)ignored;
    Step *step = (Step *)self;
    PyObject *rest = step->rest;
    step->rest = NULL;
    step->state = OVER;
    if (rest != NULL) {
        PyObject *result = PyObject_CallMethod(rest, "close", NULL);
        Py_DECREF(rest);
        return result;
    }
    Py_RETURN_NONE;
}

static PyObject *
step_name(PyObject *self, void *closure)
{
    (void)closure;
    return PyUnicode_FromString(((Step *)self)->message != NULL ? "send" : "receive");
}

static int
step_traverse(PyObject *self, visitproc visit, void *arg)
{
    Step *step = (Step *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(step->exchange);
    Py_VISIT(step->message);
    Py_VISIT(step->value);
    Py_VISIT(step->rest);
    return 0;
}

static int
step_clear(PyObject *self)
{
    Step *step = (Step *)self;
    step->state = OVER; /* there is no exchange any more */
    clear((PyObject **)&step->exchange);
    clear(&step->message);
    clear(&step->value);
    clear(&step->rest);
    return 0;
}

static void
step_dealloc(PyObject *self)
{
    Step *step = (Step *)self;
    PyObject_GC_UnTrack(self);
    if (step->state == NEW) {
        PyObject *type, *value, *traceback;
        PyErr_Fetch(&type, &value, &traceback);
        if (PyErr_WarnFormat(PyExc_RuntimeWarning, 1, "coroutine '%s' was never awaited", step->message != NULL ? "send" : "receive") < 0)
            PyErr_WriteUnraisable(NULL);
        PyErr_Restore(type, value, traceback);
    }
    step_clear(self);
    release(self);
}

static PyMethodDef step_methods[] = {
    {"send", step_send, METH_O, NULL},
    {"throw", step_throw, METH_VARARGS, NULL},
    {"close", step_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef step_getset[] = {
    {"__name__", step_name, NULL, NULL, NULL},
    {"__qualname__", step_name, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot step_slots[] = {
    {Py_tp_new, not_from_python},   {Py_tp_dealloc, step_dealloc},   {Py_tp_traverse, step_traverse},
    {Py_tp_clear, step_clear},      {Py_tp_methods, step_methods},   {Py_tp_getset, step_getset},
    {Py_am_await, step_await},      {Py_tp_iter, PyObject_SelfIter}, {Py_tp_iternext, step_next},
    {0, NULL},
};

static PyType_Spec step_spec = {
    "gatecrew_worker._speed.coroutine", sizeof(Step), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, step_slots,
};

/* The application's send: exchange(message). */
static PyObject *
exchange_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    PyObject *message;
    if (kwargs == NULL && PyTuple_Size(args) == 1) {
        message = PyTuple_GetItem(args, 0);
    }
    else {
        static char *keywords[] = {"message", NULL};
        if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:send", keywords, &message))
            return NULL;
    }
    return make_step((ExchangeFields *)self, message);
}

static PyObject *
exchange_get_send(PyObject *self, void *closure)
{
    (void)closure;
    Py_INCREF(self);
    return self;
}

/* The application's receive. */
typedef struct {
    PyObject_HEAD
    ExchangeFields *exchange;
} Receive;

static PyObject *
exchange_get_receive(PyObject *self, void *closure)
{
    (void)closure;
    Receive *receive = (Receive *)PyType_GenericAlloc(ReceiveType, 0);
    if (receive == NULL)
        return NULL;
    Py_INCREF(self);
    receive->exchange = (ExchangeFields *)self;
    return (PyObject *)receive;
}

static PyObject *
receive_call(PyObject *self, PyObject *args, PyObject *kwargs)
{
    if ((kwargs != NULL && PyDict_Size(kwargs) != 0) || PyTuple_Size(args) != 0) {
        PyErr_SetString(PyExc_TypeError, "receive() takes no arguments");
        return NULL;
    }
    return make_step(((Receive *)self)->exchange, NULL);
}

static int
receive_traverse(PyObject *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(((Receive *)self)->exchange);
    return 0;
}

static void
receive_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    Py_XDECREF(((Receive *)self)->exchange);
    release(self);
}

static PyType_Slot receive_slots[] = {
    {Py_tp_new, not_from_python}, {Py_tp_dealloc, receive_dealloc}, {Py_tp_traverse, receive_traverse},
    {Py_tp_call, receive_call},   {0, NULL},
};

static PyType_Spec receive_spec = {
    "gatecrew_worker._speed.Receive", sizeof(Receive), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC, receive_slots,
};

static PyGetSetDef exchange_getset[] = {
    {"send", exchange_get_send, NULL, NULL, NULL},
    {"receive", exchange_get_receive, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot exchange_slots[] = {
    {Py_tp_new, exchange_new},         {Py_tp_dealloc, exchange_dealloc}, {Py_tp_traverse, exchange_traverse},
    {Py_tp_clear, exchange_clear},     {Py_tp_members, exchange_members}, {Py_tp_getset, exchange_getset},
    {Py_tp_call, exchange_call},       {0, NULL},
};

static PyType_Spec exchange_spec = {
    "gatecrew_worker._speed.Exchange", sizeof(ExchangeFields), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, exchange_slots,
};

/* prepare_asgi(current_task, deque, describe_tls, status_lines): what this
 * section needs of Python, given by _asgi_native.py, since WSGI needs none of
 * it. */
static PyObject *
prepare_asgi(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject **at[] = {&current_task, &new_deque, &describe_tls, &status_lines};
    PyObject *given[4];
    if (!PyArg_ParseTuple(args, "OOOO!:prepare_asgi", &given[0], &given[1], &given[2], &PyDict_Type, &given[3]))
        return NULL;
    for (int i = 0; i < 4; i++) {
        Py_INCREF(given[i]);
        clear(at[i]);
        *at[i] = given[i];
    }
    Py_RETURN_NONE;
}

/* Adds what ASGI needs to the module. */
static int
add_asgi(PyObject *module)
{
    static const struct {
        const char *name;
        PyTypeObject **at;
        PyType_Spec *spec;
    } types[] = {
        {"Request", &RequestType, &request_spec},    {"Loop", &LoopType, &loop_spec}, {"Scopes", NULL, &scopes_spec},
        {"Exchange", NULL, &exchange_spec},          {"Receive", &ReceiveType, &receive_spec}, {"coroutine", &StepType, &step_spec},
    };
    for (size_t i = 0; i < sizeof asgi_strings / sizeof *asgi_strings; i++)
        if ((*asgi_strings[i].at = PyUnicode_InternFromString(asgi_strings[i].text)) == NULL)
            return -1;
    if ((no_bytes = PyBytes_FromStringAndSize("", 0)) == NULL || (no_items = PyTuple_New(0)) == NULL)
        return -1;
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        PyObject *type = PyType_FromSpec(types[i].spec);
        if (type == NULL)
            return -1;
        if (types[i].at != NULL) {
            Py_INCREF(type);
            *types[i].at = (PyTypeObject *)type;
        }
        if (PyModule_AddObject(module, types[i].name, type) < 0) {
            Py_DECREF(type);
            return -1;
        }
    }
    for (size_t i = 0; i < sizeof asgi_variables / sizeof *asgi_variables; i++) {
        const char *text = asgi_variables[i].name;
        Py_ssize_t size = (Py_ssize_t)strlen(text);
        if (remember_name(find_name(text, size), text, size, asgi_variables[i].kind) < 0)
            return -1;
    }
    prepare_of_header();
    return 0;
}

/* -- Module ---------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"decode_pairs", decode_pairs, METH_VARARGS, NULL},
    {"take_requests", take_requests, METH_VARARGS, NULL},
    {"prepare_asgi", prepare_asgi, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

/* Takes an attribute of a module of this package. */
static int
take(PyObject **into, const char *module_name, const char *name)
{
    PyObject *module = PyImport_ImportModule(module_name);
    if (module == NULL)
        return -1;
    *into = PyObject_GetAttrString(module, name);
    Py_DECREF(module);
    return *into == NULL ? -1 : 0;
}

static int
execute(PyObject *module)
{
    if (ProtocolError != NULL) {
        PyErr_SetString(PyExc_ImportError, "gatecrew_worker._speed is there once in a process");
        return -1;
    }
    if (take(&ProtocolError, "gatecrew_worker._records", "ProtocolError") < 0)
        return -1;
    if (add_asgi(module) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "INTERFACE", INTERFACE);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)execute},
    {0, NULL},
};

static PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_speed", NULL, 0, functions, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__speed(void)
{
    return PyModuleDef_Init(&definition);
}
