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

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

/* Raised together with the one in _native.py, whenever what one expects of the
 * other changes. */
#define INTERFACE 1


/* The convention has been the same since Python 3.7; in the stable ABI of 3.8
 * it only has no name. */
#ifndef METH_FASTCALL
#define METH_FASTCALL 0x0080
#endif

#define CAST(type, object) ((type *)(object))
#define AS_CFUNCTION(function) ((PyCFunction)(void (*)(void))(function))

/* What this file needs of the rest, looked up once. */
static PyObject *ProtocolError; /* of _records.py */
static PyObject *make_deque;
static PyObject *empty_text, *empty_bytes, *one; /* "", b"", 1 */
static PyTypeObject *RequestType, *ConnectionType, *LoopType, *HandlerType, *ResponseType, *InputType, *ErrorsType;

/* Puts an object into a field in place of what is there. */
static void
set(PyObject **field, PyObject *value)
{
    PyObject *old = *field;
    Py_INCREF(value);
    *field = value;
    Py_XDECREF(old);
}

/* Calls a method of an object without arguments. Returns -1 with an exception. */
static int
call(PyObject *object, PyObject *method)
{
    PyObject *result = PyObject_CallMethodObjArgs(object, method, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* -- Codec: PROTOCOL.md, sections 1 and 2 ---------------------------------- */

/* Names and values of variables come again and again. What was decoded last
 * under a name is kept in the slot that the name's bytes lead to; those that all
 * requests have are put there from the beginning, and stay. */

#define CACHED_NAME 48
#define CACHED_VALUE 80
#define SLOT_BITS 9

enum { /* what a name says of a request */
    IS_PROXY = 1, /* HTTP_PROXY, which no application may see */
    IS_SCHEME = 2, /* REQUEST_SCHEME or HTTPS */
    IS_OF_SERVER = 4, /* the gateway puts these first */
};

struct slot {
    PyObject *name, *value;
    unsigned char flags, stays;
    unsigned char name_size, value_size;
    char name_bytes[CACHED_NAME];
    char value_bytes[CACHED_VALUE];
};

static struct slot slots_of_names[1 << SLOT_BITS];

static struct slot *
slot_of(const char *name, Py_ssize_t size)
{
    uint64_t start = 0, end = 0;
    if (size >= 8) {
        memcpy(&start, name, 8);
        memcpy(&end, name + size - 8, 8);
    } else {
        memcpy(&start, name, (size_t)size);
    }
    uint64_t mixed = (start ^ (end << 7 | end >> 57) ^ (uint64_t)size) * UINT64_C(0x9e3779b97f4a7c15);
    return &slots_of_names[mixed >> (64 - SLOT_BITS)];
}

static const struct {
    const char *name;
    unsigned char flags;
} usual_names[] = {
    {"GATEWAY_INTERFACE", IS_OF_SERVER}, {"SERVER_SOFTWARE", IS_OF_SERVER}, {"SERVER_PROTOCOL", IS_OF_SERVER},
    {"REDIRECT_STATUS", IS_OF_SERVER}, {"DOCUMENT_ROOT", IS_OF_SERVER}, {"SERVER_ADDR", IS_OF_SERVER},
    {"SERVER_NAME", IS_OF_SERVER}, {"SERVER_PORT", IS_OF_SERVER}, {"REQUEST_SCHEME", IS_OF_SERVER | IS_SCHEME},
    {"HTTPS", IS_OF_SERVER | IS_SCHEME}, {"HTTP_PROXY", IS_PROXY},
    {"REQUEST_METHOD", 0}, {"REQUEST_URI", 0}, {"QUERY_STRING", 0}, {"SCRIPT_NAME", 0}, {"PATH_INFO", 0},
    {"DOCUMENT_URI", 0}, {"REMOTE_ADDR", 0}, {"REMOTE_HOST", 0}, {"REMOTE_PORT", 0}, {"REMOTE_USER", 0}, {"AUTH_TYPE", 0},
    {"CONTENT_TYPE", 0}, {"CONTENT_LENGTH", 0}, {"UNIQUE_ID", 0}, {"PATH_TRANSLATED", 0}, {"SCRIPT_FILENAME", 0},
    {"HTTP_HOST", 0}, {"HTTP_ACCEPT", 0}, {"HTTP_USER_AGENT", 0}, {"HTTP_ACCEPT_ENCODING", 0}, {"HTTP_ACCEPT_LANGUAGE", 0},
    {"HTTP_COOKIE", 0}, {"HTTP_REFERER", 0}, {"HTTP_CONNECTION", 0}, {"HTTP_CACHE_CONTROL", 0}, {"HTTP_AUTHORIZATION", 0},
    {"HTTP_ORIGIN", 0}, {"HTTP_X_FORWARDED_FOR", 0}, {"HTTP_X_FORWARDED_PROTO", 0}, {"HTTP_X_REQUESTED_WITH", 0},
    {"HTTP_IF_NONE_MATCH", 0}, {"HTTP_IF_MODIFIED_SINCE", 0}, {"HTTP_UPGRADE_INSECURE_REQUESTS", 0},
    {"HTTP_SEC_FETCH_DEST", 0}, {"HTTP_SEC_FETCH_MODE", 0}, {"HTTP_SEC_FETCH_SITE", 0}, {"HTTP_SEC_FETCH_USER", 0},
};

/* Makes the slots of the usual names. Of two that share one the first has it. */
static int
fill_slots(void)
{
    for (size_t i = 0; i < sizeof usual_names / sizeof usual_names[0]; i++) {
        Py_ssize_t size = (Py_ssize_t)strlen(usual_names[i].name);
        struct slot *slot = slot_of(usual_names[i].name, size);
        if (slot->name != NULL) {
            if (usual_names[i].flags) {
                PyErr_SetString(PyExc_SystemError, "two names of variables share a slot");
                return -1;
            }
            continue;
        }
        slot->name = PyUnicode_InternFromString(usual_names[i].name);
        if (slot->name == NULL)
            return -1;
        slot->flags = usual_names[i].flags;
        slot->stays = 1;
        slot->name_size = (unsigned char)size;
        memcpy(slot->name_bytes, usual_names[i].name, (size_t)size);
    }
    return 0;
}

/* Reads the length at *pos. Returns -1 when the block ends in the middle of
 * it. */
static inline Py_ssize_t
read_length(const char *block, Py_ssize_t size, Py_ssize_t *pos)
{
    const unsigned char *at = (const unsigned char *)block + *pos;
    if (*pos >= size)
        return -1;
    if (at[0] < 128) {
        *pos += 1;
        return at[0];
    }
    if (size - *pos < 4)
        return -1;
    *pos += 4;
    return (Py_ssize_t)(((uint32_t)(at[0] & 0x7f) << 24) | ((uint32_t)at[1] << 16) | ((uint32_t)at[2] << 8) | at[3]);
}

struct pair {
    const char *name, *value;
    Py_ssize_t name_size, value_size;
};

/* Reads the pair at *pos. Returns 1, 0 at the end of the block, and -1 when
 * the block is cut in the middle of the pair, without an exception. */
static inline int
read_pair(const char *block, Py_ssize_t size, Py_ssize_t *pos, struct pair *pair)
{
    if (*pos >= size)
        return 0;
    pair->name_size = read_length(block, size, pos);
    pair->value_size = pair->name_size < 0 ? -1 : read_length(block, size, pos);
    /* Two steps: the sum may be more than a Py_ssize_t of 32 bits holds. */
    if (pair->value_size < 0 || pair->name_size > size - *pos || pair->value_size > size - *pos - pair->name_size)
        return -1;
    pair->name = block + *pos;
    pair->value = pair->name + pair->name_size;
    *pos += pair->name_size + pair->value_size;
    return 1;
}

static int
is_cut(void)
{
    PyErr_SetString(ProtocolError, "name-value pairs: cut in the middle of a pair");
    return -1;
}

/* Adds one pair to a dictionary, as latin-1 text, and the flags of its name to
 * *flags. */
static int
add_pair(const struct pair *pair, PyObject *into, int *flags)
{
    PyObject *name, *value;
    struct slot *slot = NULL;
    if (pair->name_size <= CACHED_NAME) {
        slot = slot_of(pair->name, pair->name_size);
        if (slot->name == NULL || slot->name_size != pair->name_size
            || memcmp(slot->name_bytes, pair->name, (size_t)pair->name_size) != 0) {
            if (slot->stays) {
                slot = NULL;
            } else {
                name = PyUnicode_DecodeLatin1(pair->name, pair->name_size, NULL);
                if (name == NULL)
                    return -1;
                PyObject *old_name = slot->name, *old_value = slot->value;
                slot->name = name;
                slot->value = NULL;
                slot->name_size = (unsigned char)pair->name_size;
                memcpy(slot->name_bytes, pair->name, (size_t)pair->name_size);
                Py_XDECREF(old_name);
                Py_XDECREF(old_value);
            }
        }
    }
    if (slot != NULL) {
        name = slot->name;
        Py_INCREF(name);
        *flags |= slot->flags;
    } else {
        name = PyUnicode_DecodeLatin1(pair->name, pair->name_size, NULL);
        if (name == NULL)
            return -1;
    }
    if (slot != NULL && slot->value != NULL && slot->value_size == pair->value_size
        && memcmp(slot->value_bytes, pair->value, (size_t)pair->value_size) == 0) {
        value = slot->value;
        Py_INCREF(value);
    } else {
        value = PyUnicode_DecodeLatin1(pair->value, pair->value_size, NULL);
        if (value == NULL) {
            Py_DECREF(name);
            return -1;
        }
        if (slot != NULL && pair->value_size <= CACHED_VALUE) {
            PyObject *old = slot->value;
            Py_INCREF(value);
            slot->value = value;
            slot->value_size = (unsigned char)pair->value_size;
            memcpy(slot->value_bytes, pair->value, (size_t)pair->value_size);
            Py_XDECREF(old);
        }
    }
    int failed = PyDict_SetItem(into, name, value);
    Py_DECREF(name);
    Py_DECREF(value);
    return failed;
}

/* Adds the pairs of a block from pos on. Returns -1 with an exception when that
 * can't be done; the pairs before the fault are there then. */
static int
add_pairs(const char *block, Py_ssize_t size, Py_ssize_t pos, PyObject *into, int *flags)
{
    struct pair pair;
    int more;
    while ((more = read_pair(block, size, &pos, &pair)) > 0) {
        if (add_pair(&pair, into, flags) < 0)
            return -1;
    }
    return more < 0 ? is_cut() : 0;
}

/* decode_pairs(block, into), as in _records.py. */
static PyObject *
decode_pairs(PyObject *module, PyObject *args)
{
    (void)module;
    char *block;
    Py_ssize_t size;
    PyObject *bytes, *into;
    int flags = 0;
    if (!PyArg_ParseTuple(args, "SO!:decode_pairs", &bytes, &PyDict_Type, &into)
        || PyBytes_AsStringAndSize(bytes, &block, &size) < 0 || add_pairs(block, size, 0, into, &flags) < 0)
        return NULL;
    Py_INCREF(into);
    return into;
}

/* -- Requests -------------------------------------------------------------- */

/* The fields of _connection.Request. */
typedef struct {
    PyObject_HEAD
    PyObject *key; /* id, as the key of the open requests */
    PyObject *params; /* the encoded parameters, or the block in which they stand */
    PyObject *input, *interruption, *hinted;
    Py_ssize_t params_start, params_size; /* -1: they are the whole of params */
    long long input_received, input_read, input_granted, granted, sent, began;
    unsigned long thread;
    int id, role;
    char input_ended, aborted, ended, guarded;
} Request;

#define WINDOW 131072 /* INPUT_WINDOW of _connection.py */

/* Requests that ended, for those that begin. */
static Request *free_requests[64];
static int free_request_count;

static Request *
new_request(PyTypeObject *type, PyObject *key, long id, long long window, int role)
{
    Request *self;
    if (type == RequestType && free_request_count > 0) {
        self = free_requests[--free_request_count];
        (void)PyObject_Init((PyObject *)self, type);
        self->params = self->input = self->interruption = self->hinted = NULL;
        self->input_received = self->input_read = self->sent = self->began = 0;
        self->thread = 0;
        self->input_ended = self->aborted = self->ended = 0;
        PyObject_GC_Track(self);
    } else {
        self = CAST(Request, PyType_GenericAlloc(type, 0));
        if (self == NULL)
            return NULL;
    }
    Py_INCREF(key);
    self->key = key;
    self->id = (int)id;
    self->role = role;
    self->params_size = -1;
    self->input_granted = WINDOW;
    self->granted = window;
    self->guarded = 1;
    return self;
}

static PyObject *
request_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char *names[] = {"request_id", "window", "role", NULL};
    PyObject *key;
    long long window;
    int role = 1;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O!L|i:Request", names, &PyLong_Type, &key, &window, &role))
        return NULL;
    long id = PyLong_AsLong(key);
    if (id == -1 && PyErr_Occurred())
        return NULL;
    return (PyObject *)new_request(type, key, id, window, role);
}

static int
request_traverse(Request *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->input);
    Py_VISIT(self->interruption);
    Py_VISIT(self->hinted);
    return 0;
}

static int
request_clear(Request *self)
{
    Py_CLEAR(self->key);
    Py_CLEAR(self->params);
    Py_CLEAR(self->input);
    Py_CLEAR(self->interruption);
    Py_CLEAR(self->hinted);
    return 0;
}

static void
request_dealloc(Request *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    request_clear(self);
    if (type == RequestType && free_request_count < (int)(sizeof free_requests / sizeof free_requests[0]))
        free_requests[free_request_count++] = self;
    else
        PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyObject *
request_get_params(Request *self, void *unused)
{
    (void)unused;
    if (self->params == NULL)
        Py_RETURN_NONE;
    if (self->params_size >= 0) {
        char *block = PyBytes_AsString(self->params);
        PyObject *params = block == NULL ? NULL : PyBytes_FromStringAndSize(block + self->params_start, self->params_size);
        if (params == NULL)
            return NULL;
        PyObject *old = self->params;
        self->params = params;
        self->params_size = -1;
        Py_DECREF(old);
    }
    Py_INCREF(self->params);
    return self->params;
}

static int
request_set_params(Request *self, PyObject *value, void *unused)
{
    (void)unused;
    PyObject *old = self->params;
    Py_XINCREF(value);
    self->params = value;
    self->params_size = -1;
    Py_XDECREF(old);
    return 0;
}

/* Most requests have no body: the deque is made when somebody asks for it. */
static PyObject *
request_get_input(Request *self, void *unused)
{
    (void)unused;
    if (self->input == NULL) {
        PyObject *made = PyObject_CallObject(make_deque, NULL);
        if (made == NULL)
            return NULL;
        if (self->input == NULL) /* another thread may have been quicker */
            self->input = made;
        else
            Py_DECREF(made);
    }
    Py_INCREF(self->input);
    return self->input;
}

static PyMemberDef request_members[] = {
    {"id", T_INT, offsetof(Request, id), READONLY, NULL},
    {"role", T_INT, offsetof(Request, role), READONLY, NULL},
    {"input_ended", T_BOOL, offsetof(Request, input_ended), 0, NULL},
    {"input_received", T_LONGLONG, offsetof(Request, input_received), 0, NULL},
    {"input_read", T_LONGLONG, offsetof(Request, input_read), 0, NULL},
    {"input_granted", T_LONGLONG, offsetof(Request, input_granted), 0, NULL},
    {"granted", T_LONGLONG, offsetof(Request, granted), 0, NULL},
    {"sent", T_LONGLONG, offsetof(Request, sent), 0, NULL},
    {"aborted", T_BOOL, offsetof(Request, aborted), 0, NULL},
    {"ended", T_BOOL, offsetof(Request, ended), 0, NULL},
    {"began", T_LONGLONG, offsetof(Request, began), 0, NULL},
    {"thread", T_ULONG, offsetof(Request, thread), 0, NULL},
    {"guarded", T_BOOL, offsetof(Request, guarded), 0, NULL},
    {"interruption", T_OBJECT, offsetof(Request, interruption), 0, NULL},
    {"hinted", T_OBJECT_EX, offsetof(Request, hinted), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef request_fields[] = {
    {"params", (getter)request_get_params, (setter)request_set_params, NULL, NULL},
    {"input", (getter)request_get_input, NULL, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot request_slots[] = {
    {Py_tp_new, request_new},
    {Py_tp_traverse, request_traverse},
    {Py_tp_clear, request_clear},
    {Py_tp_dealloc, request_dealloc},
    {Py_tp_members, request_members},
    {Py_tp_getset, request_fields},
    {0, NULL},
};

static PyType_Spec request_spec = {
    "gatecrew_worker._speed.Request", sizeof(Request), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, request_slots,
};

/* -- Connections ----------------------------------------------------------- */

/* The fields of _connection.Connection that are looked at for each request. */
typedef struct {
    PyObject_HEAD
    PyObject *requests, *reply, *rest, *make_request;
    long long begun, seen, window;
    long long max_requests, ahead;
    char draining, flow;
} Connection;

static PyObject *name_open;

static int
connection_traverse(Connection *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->requests);
    Py_VISIT(self->make_request);
    return 0;
}

static int
connection_clear(Connection *self)
{
    Py_CLEAR(self->requests);
    Py_CLEAR(self->reply);
    Py_CLEAR(self->rest);
    Py_CLEAR(self->make_request);
    return 0;
}

static void
connection_dealloc(Connection *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    connection_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

#define OPENING 24
#define ENDING 16

/* Whether a whole request without a body lies at data: BEGIN_REQUEST, one
 * PARAMS record and the two empty records that end PARAMS and STDIN. Returns
 * the size of its parameters, or 0 when it looks different in the least. */
static Py_ssize_t
small_request(const unsigned char *data, Py_ssize_t size)
{
    static const unsigned char begin_rest[] = {0, 8, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 1, 4};
    if (size < OPENING + 1 + ENDING || data[0] != 1 || data[1] != 1 || memcmp(data + 4, begin_rest, sizeof begin_rest) != 0
        || data[18] != data[2] || data[19] != data[3] || data[22] != 0 || data[23] != 0)
        return 0;
    Py_ssize_t length = (Py_ssize_t)(data[20] << 8 | data[21]);
    if (length == 0 || size - OPENING - ENDING < length)
        return 0;
    const unsigned char ending[ENDING] = {
        1, 4, data[2], data[3], 0, 0, 0, 0, 1, 5, data[2], data[3], 0, 0, 0, 0};
    return memcmp(data + OPENING + length, ending, ENDING) == 0 ? length : 0;
}

/* Opens the request without a body whose parameters stand in a block. Returns
 * -1 with an exception, else adds it to begun unless it was refused. */
static int
open_request(Connection *self, PyObject *block, Py_ssize_t start, Py_ssize_t size, long id, PyObject *begun)
{
    PyObject *key = PyLong_FromLong(id), *request = NULL;
    int is_open = key == NULL ? -1 : PyDict_Contains(self->requests, key);
    if (is_open < 0)
        goto failed;
    if (is_open || id == 0 || self->draining || PyDict_Size(self->requests) >= self->max_requests + self->ahead
        || self->make_request != (PyObject *)RequestType) {
        request = PyObject_CallMethodObjArgs((PyObject *)self, name_open, key, NULL);
        if (request == NULL)
            goto failed;
        if (request != Py_None) {
            PyObject *params = PyBytes_FromStringAndSize(PyBytes_AsString(block) + start, size);
            int failed = params == NULL || PyObject_SetAttrString(request, "params", params) < 0
                || PyObject_SetAttrString(request, "input_ended", Py_True) < 0 || PyList_Append(begun, request) < 0;
            Py_XDECREF(params);
            if (failed)
                goto failed;
        }
    } else {
        request = (PyObject *)new_request(RequestType, key, id, self->window, 1);
        if (request == NULL || PyDict_SetItem(self->requests, key, request) < 0)
            goto failed;
        self->seen++;
        self->begun++;
        Request *made = CAST(Request, request);
        Py_INCREF(block);
        made->params = block;
        made->params_start = start;
        made->params_size = size;
        made->input_ended = 1;
        if (PyList_Append(begun, request) < 0)
            goto failed;
    }
    Py_DECREF(key);
    Py_DECREF(request);
    return 0;
failed:
    Py_XDECREF(key);
    Py_XDECREF(request);
    return -1;
}

/* What _connection.Connection.receive does with a block of bytes. */
static int
receive(Connection *self, PyObject *data, PyObject *begun, PyObject *touched)
{
    char *bytes;
    Py_ssize_t size, pos = 0;
    if (self->requests == NULL || self->rest == NULL || !PyDict_Check(self->requests)) {
        PyErr_SetString(PyExc_SystemError, "a Connection that was not initialised");
        return -1;
    }
    if (!PyBytes_Check(self->rest) || PyBytes_Size(self->rest) > 0) {
        PyObject *whole = PySequence_Concat(self->rest, data);
        if (whole == NULL)
            return -1;
        data = whole;
    } else {
        Py_INCREF(data);
    }
    if (PyBytes_AsStringAndSize(data, &bytes, &size) < 0)
        goto failed;
    while (size - pos >= 8) {
        const unsigned char *at = (const unsigned char *)bytes + pos;
        Py_ssize_t params = small_request(at, size - pos);
        if (params > 0) {
            if (open_request(self, data, pos + OPENING, params, at[2] << 8 | at[3], begun) < 0)
                goto failed;
            pos += OPENING + params + ENDING;
            continue;
        }
        PyObject *end = PyObject_CallMethod((PyObject *)self, "_receive_record", "OnnOO", data, pos, size, begun, touched);
        if (end == NULL)
            goto failed;
        Py_ssize_t next = PyLong_AsSsize_t(end);
        Py_DECREF(end);
        if (next == -1 && PyErr_Occurred())
            goto failed;
        if (next <= pos || next > size)
            break; /* not all of it is there */
        pos = next;
    }
    PyObject *rest = PyBytes_FromStringAndSize(bytes + pos, size - pos);
    if (rest == NULL)
        goto failed;
    PyObject *old = self->rest;
    self->rest = rest;
    Py_XDECREF(old);
    Py_DECREF(data);
    return 0;
failed:
    Py_DECREF(data);
    return -1;
}

static PyObject *
connection_receive(Connection *self, PyObject *data)
{
    if (!PyBytes_Check(data)) {
        PyErr_SetString(PyExc_TypeError, "receive() takes bytes");
        return NULL;
    }
    PyObject *begun = PyList_New(0), *touched = PyList_New(0), *both = NULL;
    if (begun != NULL && touched != NULL && receive(self, data, begun, touched) == 0)
        both = PyTuple_Pack(2, begun, touched);
    Py_XDECREF(begun);
    Py_XDECREF(touched);
    return both;
}

static PyMethodDef connection_methods[] = {
    {"receive", AS_CFUNCTION(connection_receive), METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef connection_members[] = {
    {"max_requests", T_LONGLONG, offsetof(Connection, max_requests), 0, NULL},
    {"ahead", T_LONGLONG, offsetof(Connection, ahead), 0, NULL},
    {"requests", T_OBJECT_EX, offsetof(Connection, requests), 0, NULL},
    {"begun", T_LONGLONG, offsetof(Connection, begun), 0, NULL},
    {"seen", T_LONGLONG, offsetof(Connection, seen), 0, NULL},
    {"draining", T_BOOL, offsetof(Connection, draining), 0, NULL},
    {"flow", T_BOOL, offsetof(Connection, flow), 0, NULL},
    {"reply", T_OBJECT_EX, offsetof(Connection, reply), 0, NULL},
    {"_make_request", T_OBJECT_EX, offsetof(Connection, make_request), 0, NULL},
    {"_window", T_LONGLONG, offsetof(Connection, window), 0, NULL},
    {"_rest", T_OBJECT_EX, offsetof(Connection, rest), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot connection_slots[] = {
    {Py_tp_traverse, connection_traverse},
    {Py_tp_clear, connection_clear},
    {Py_tp_dealloc, connection_dealloc},
    {Py_tp_methods, connection_methods},
    {Py_tp_members, connection_members},
    {0, NULL},
};

static PyType_Spec connection_spec = {
    "gatecrew_worker._speed.Connection", sizeof(Connection), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    connection_slots,
};

/* -- Loops ----------------------------------------------------------------- */

#define END_REQUEST 3
#define STDOUT 6
#define MAX_WORKED 0xFFFFFF /* of _records.py */
#define RECORD 32768 /* _RECORD of _threads.py */
#define BLOCK 65536 /* _BLOCK of _threads.py */
#define HELD_BYTES 131072 /* answers held back together: _HELD_BYTES of _threads.py, */
#define HELD_TIME 1000000 /* and for how long, in nanoseconds: _HELD_TIME, */
#define WATCH_TIME 2000000 /* and how often it is looked whether an application keeps them for longer */
#define WATCH_ROUNDS 25 /* in vain, after which that ends */

/* Bytes that are to be sent. */
struct output {
    char *bytes;
    size_t used, room;
    long long ended; /* requests whose END_REQUEST is among them */
};

/* The fields of _threads.Loop that are looked at for each request. What is to
 * be sent is collected in output, of which only whoever has the interpreter
 * takes care, and taken out to be sent by whoever has send_lock as well. */
typedef struct {
    PyObject_HEAD
    PyObject *connection, *ready, *blocked, *idle;
    PyObject *popleft, *extend, *acquire, *release, *send_acquire, *send_release, *fileno; /* methods */
    PyObject *current; /* the request that serve() is at */
    struct output output, spare;
    char *block;
    long long ended;
    int64_t now; /* when the request that serve() is at began, */
    int64_t held_since; /* the first one whose answer is held back; 0 when none is. _watch() reads it without the interpreter */
    PyThread_type_lock wake; /* of _watch(), taken while there is nothing to look at */
    char watched, unwatched; /* it is awake; it is to end */
    char alone; /* the answer of the request in progress is not to be held back */
    unsigned long thread; /* that is in serve(), 0 when none is */
    char reading, end_of_input, broken;
} Loop;

static PyObject *name_wait, *name_has_work, *name_pass_on, *name_take_in, *name_set_failure, *name_set_end_of_input,
    *name_stop_if_done, *name_end;

static int64_t
clock_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int
loop_traverse(Loop *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->connection);
    Py_VISIT(self->ready);
    Py_VISIT(self->blocked);
    Py_VISIT(self->idle);
    Py_VISIT(self->popleft);
    Py_VISIT(self->extend);
    Py_VISIT(self->acquire);
    Py_VISIT(self->release);
    Py_VISIT(self->send_acquire);
    Py_VISIT(self->send_release);
    Py_VISIT(self->fileno);
    Py_VISIT(self->current);
    return 0;
}

static int
loop_clear(Loop *self)
{
    Py_CLEAR(self->connection);
    Py_CLEAR(self->ready);
    Py_CLEAR(self->blocked);
    Py_CLEAR(self->idle);
    Py_CLEAR(self->popleft);
    Py_CLEAR(self->extend);
    Py_CLEAR(self->acquire);
    Py_CLEAR(self->release);
    Py_CLEAR(self->send_acquire);
    Py_CLEAR(self->send_release);
    Py_CLEAR(self->fileno);
    Py_CLEAR(self->current);
    return 0;
}

static void
loop_dealloc(Loop *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    loop_clear(self);
    free(self->output.bytes);
    free(self->spare.bytes);
    free(self->block);
    if (self->wake != NULL)
        PyThread_free_lock(self->wake);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* _prepare(connection, sock, ready, lock, send_lock, blocked, idle): takes what
 * _threads.Loop has made. */
static PyObject *
loop_prepare(Loop *self, PyObject *args)
{
    PyObject *connection, *sock, *ready, *lock, *send_lock, *blocked, *idle;
    if (!PyArg_ParseTuple(args, "O!OOOOO!O!:_prepare", ConnectionType, &connection, &sock, &ready, &lock, &send_lock, &PyList_Type,
                          &blocked, &PyList_Type, &idle))
        return NULL;
    const struct {
        PyObject **into, *of;
        const char *name;
    } methods[] = {
        {&self->popleft, ready, "popleft"}, {&self->extend, ready, "extend"}, {&self->acquire, lock, "acquire"},
        {&self->release, lock, "release"}, {&self->send_acquire, send_lock, "acquire"},
        {&self->send_release, send_lock, "release"}, {&self->fileno, sock, "fileno"},
    };
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++) {
        PyObject *method = PyObject_GetAttrString(methods[i].of, methods[i].name);
        if (method == NULL)
            return NULL;
        set(methods[i].into, method);
        Py_DECREF(method);
    }
    set(&self->connection, connection);
    set(&self->ready, ready);
    set(&self->blocked, blocked);
    set(&self->idle, idle);
    if (self->block == NULL && (self->block = malloc(BLOCK)) == NULL)
        return PyErr_NoMemory();
    if (self->wake == NULL) {
        if ((self->wake = PyThread_allocate_lock()) == NULL)
            return PyErr_NoMemory();
        PyThread_acquire_lock(self->wake, NOWAIT_LOCK);
    }
    Py_RETURN_NONE;
}

/* Calls one of the methods above. Returns -1 with an exception. */
static int
invoke(PyObject *method)
{
    PyObject *result = PyObject_CallObject(method, NULL);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Calls a method while an exception may be on its way, which stays. */
static void
invoke_aside(PyObject *method)
{
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    if (invoke(method) < 0)
        PyErr_WriteUnraisable(method);
    PyErr_Restore(type, value, traceback);
}

static int
descriptor(Loop *self)
{
    PyObject *number = PyObject_CallObject(self->fileno, NULL);
    long fd = number == NULL ? -1 : PyLong_AsLong(number); /* -1 after a fork */
    Py_XDECREF(number);
    return (int)fd;
}

/* Makes room for so many bytes more. */
static char *
reserve(struct output *output, size_t size)
{
    if (output->room - output->used < size) {
        size_t room = output->room < 8192 ? 8192 : output->room;
        while (room - output->used < size)
            room *= 2;
        char *bytes = realloc(output->bytes, room);
        if (bytes == NULL) {
            PyErr_NoMemory();
            return NULL;
        }
        output->bytes = bytes;
        output->room = room;
    }
    return output->bytes + output->used;
}

static char *
put(char *at, const void *bytes, size_t size)
{
    memcpy(at, bytes, size);
    return at + size;
}

static char *
put_header(char *at, int kind, int id, size_t size)
{
    const unsigned char header[8] = {
        1, (unsigned char)kind, (unsigned char)(id >> 8), (unsigned char)id, (unsigned char)(size >> 8), (unsigned char)size, 0, 0};
    return put(at, header, sizeof header);
}

/* END_REQUEST of an answer that is complete, with how long it took: _worked() of
 * _threads.py. */
static char *
put_end(char *at, Loop *loop, Request *request)
{
    unsigned char complete[8] = {0};
    if (request->began && CAST(Connection, loop->connection)->flow) {
        uint64_t worked = ((uint64_t)clock_now() - (uint64_t)request->began) / 1000 + 1; /* began is what Python has set */
        if (worked > MAX_WORKED)
            worked = MAX_WORKED;
        complete[5] = (unsigned char)(worked >> 16);
        complete[6] = (unsigned char)(worked >> 8);
        complete[7] = (unsigned char)worked;
    }
    return put(put_header(at, END_REQUEST, request->id, sizeof complete), complete, sizeof complete);
}

/* Sends two pieces. Returns 0, or -1 when the gateway has gone. The interpreter
 * is left to others only when the gateway has to be waited for. What a handler
 * of signals raises waits until nothing is half sent: then an exception is set
 * and 0 or -1 returned. */
static int
send_whole(int fd, const char *first, size_t first_size, const char *second, size_t second_size)
{
    PyObject *type = NULL, *value = NULL, *traceback = NULL;
    int status = 0, flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    while (first_size + second_size > 0) {
        struct iovec pieces[2] = {{(void *)first, first_size}, {(void *)second, second_size}};
        struct msghdr message = {0};
        message.msg_iov = first_size ? pieces : pieces + 1;
        message.msg_iovlen = first_size && second_size ? 2 : 1;
        ssize_t sent;
        int error;
        if (flags & MSG_DONTWAIT) {
            sent = sendmsg(fd, &message, flags);
            error = errno;
        } else {
            PyThreadState *state = PyEval_SaveThread();
            sent = sendmsg(fd, &message, flags);
            error = errno;
            PyEval_RestoreThread(state);
        }
        if (sent < 0) {
            if (error == EAGAIN || error == EWOULDBLOCK) {
                flags = MSG_NOSIGNAL;
            } else if (error != EINTR) {
                status = -1;
                break;
            } else if (PyErr_CheckSignals() < 0) {
                if (type == NULL)
                    PyErr_Fetch(&type, &value, &traceback);
                else
                    PyErr_Clear();
            }
            continue;
        }
        size_t of_first = (size_t)sent < first_size ? (size_t)sent : first_size;
        first += of_first;
        first_size -= of_first;
        second += (size_t)sent - of_first;
        second_size -= (size_t)sent - of_first;
    }
    if (type != NULL)
        PyErr_Restore(type, value, traceback);
    return status;
}

/* Sends what was held back, and a piece more; ended says how many requests that
 * piece ends. */
static int
flush_with(Loop *self, const char *bytes, size_t size, int ended)
{
    if (invoke(self->send_acquire) < 0)
        return -1;
    struct output out = self->output;
    self->output = self->spare;
    self->output.used = 0;
    self->output.ended = 0;
    __atomic_store_n(&self->held_since, 0, __ATOMIC_RELAXED);
    self->spare = (struct output){0};
    if (!self->broken) {
        int fd = descriptor(self);
        if (PyErr_Occurred())
            PyErr_Clear(); /* an end that is no socket is one that has gone */
        if (send_whole(fd, out.bytes, out.used, bytes, size) < 0)
            self->broken = 1; /* the gateway has gone: the reader sees it too */
    }
    self->ended += out.ended + ended;
    if (self->spare.bytes == NULL)
        self->spare = out; /* its room */
    else
        free(out.bytes);
    invoke_aside(self->send_release);
    if (PyErr_Occurred())
        return -1;
    if (out.ended && CAST(Connection, self->connection)->draining)
        return call((PyObject *)self, name_stop_if_done);
    return 0;
}

static int
flush(Loop *self)
{
    if (self->send_acquire == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Loop that was not initialised");
        return -1;
    }
    return self->output.used ? flush_with(self, NULL, 0, 0) : 0;
}

static void
wake_watch(Loop *self)
{
    self->watched = 1;
    PyThread_release_lock(self->wake);
}

/* Sends what was collected unless it may wait for the next answer. */
static int
flush_or_hold(Loop *self)
{
    if (self->thread == 0 || self->thread != PyThread_get_thread_ident() || self->alone || self->output.used > HELD_BYTES)
        return flush(self);
    if (self->held_since == 0) {
        __atomic_store_n(&self->held_since, self->now, __ATOMIC_RELAXED);
        if (!self->watched)
            wake_watch(self);
    }
    return 0;
}

/* _watch(), in a thread of its own: sends what is held back while an application
 * takes longer over its next request. It asks for the interpreter only then. */
static PyObject *
loop_watch(Loop *self, PyObject *unused)
{
    (void)unused;
    if (self->wake == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Loop that was not initialised");
        return NULL;
    }
    while (!self->unwatched) {
        int64_t since;
        int rounds = 0;
        PyThreadState *state = PyEval_SaveThread();
        PyThread_acquire_lock(self->wake, WAIT_LOCK);
        do {
            const struct timespec pause = {0, WATCH_TIME};
            nanosleep(&pause, NULL);
            since = __atomic_load_n(&self->held_since, __ATOMIC_RELAXED);
            rounds = since ? 0 : rounds + 1;
        } while (since ? clock_now() - since < WATCH_TIME : rounds < WATCH_ROUNDS);
        PyEval_RestoreThread(state);
        if (flush(self) < 0)
            PyErr_WriteUnraisable((PyObject *)self);
        self->watched = 0;
        if (rounds < WATCH_ROUNDS || self->held_since)
            wake_watch(self);
    }
    Py_RETURN_NONE;
}

/* _unwatch(): has _watch() end. */
static PyObject *
loop_unwatch(Loop *self, PyObject *unused)
{
    (void)unused;
    self->unwatched = 1;
    if (!self->watched && self->wake != NULL)
        wake_watch(self);
    Py_RETURN_NONE;
}

/* _flush() */
static PyObject *
loop_flush(Loop *self, PyObject *unused)
{
    (void)unused;
    if (flush(self) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* _send(payload, ended=0), as in _threads.py. What ends a request waits with
 * other answers. */
static PyObject *
loop_send(Loop *self, PyObject *args)
{
    PyObject *payload;
    char *bytes;
    Py_ssize_t size;
    int ended = 0;
    if (!PyArg_ParseTuple(args, "S|i:_send", &payload, &ended) || PyBytes_AsStringAndSize(payload, &bytes, &size) < 0)
        return NULL;
    if (self->send_acquire == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Loop that was not initialised");
        return NULL;
    }
    if (ended && size <= RECORD) {
        char *at = reserve(&self->output, (size_t)size);
        if (at == NULL)
            return NULL;
        put(at, bytes, (size_t)size);
        self->output.used += (size_t)size;
        self->output.ended += ended;
        if (flush_or_hold(self) < 0)
            return NULL;
    } else if (flush_with(self, bytes, (size_t)size, ended) < 0) {
        return NULL;
    }
    Py_RETURN_NONE;
}

/* Reads a block, as _threads.Loop._read does, for the one thread there is. Its
 * requests are in ready then. Returns 0 without having read when somebody else
 * has the read role, -1 with an exception. */
static int
read_block(Loop *self)
{
    ssize_t size;
    if (invoke(self->acquire) < 0)
        return -1;
    if (self->reading || self->end_of_input || PyObject_Size(self->ready) > 0) {
        PyObject *waited = Py_None;
        Py_INCREF(waited);
        if (self->reading) {
            PyObject *has_work = PyObject_GetAttr((PyObject *)self, name_has_work);
            Py_DECREF(waited);
            waited = has_work == NULL ? NULL : PyObject_CallMethodObjArgs((PyObject *)self, name_wait, has_work, NULL);
            Py_XDECREF(has_work);
        }
        Py_XDECREF(waited);
        invoke_aside(self->release);
        return PyErr_Occurred() ? -1 : 0;
    }
    self->reading = 1;
    invoke_aside(self->release);
    int fd = descriptor(self), failed = PyErr_Occurred() != NULL;
    do {
        int error;
        PyThreadState *state = PyEval_SaveThread();
        size = recv(fd, self->block, BLOCK, 0);
        error = errno;
        PyEval_RestoreThread(state);
        if (size >= 0 || error != EINTR)
            break;
        failed = PyErr_CheckSignals() < 0;
    } while (!failed);
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    while (invoke(self->acquire) < 0) { /* a handler of signals raised */
        failed = 1;
        if (type == NULL)
            PyErr_Fetch(&type, &value, &traceback);
        else
            PyErr_Clear();
    }
    self->reading = 0;
    PyErr_Restore(type, value, traceback);
    if (failed) {
        PyErr_Fetch(&type, &value, &traceback);
        if (call((PyObject *)self, name_pass_on) < 0)
            PyErr_WriteUnraisable((PyObject *)self);
        PyErr_Restore(type, value, traceback);
        goto done;
    }
    if (size <= 0) { /* an error is a reset: the gateway has gone */
        call((PyObject *)self, name_set_end_of_input);
        goto done;
    }
    Connection *connection = CAST(Connection, self->connection);
    PyObject *data = PyBytes_FromStringAndSize(self->block, size), *begun = PyList_New(0), *touched = PyList_New(0);
    PyObject *result = NULL;
    if (data == NULL || begun == NULL || touched == NULL)
        ;
    else if (receive(connection, data, begun, touched) < 0) {
        if (PyErr_ExceptionMatches(ProtocolError)) {
            PyErr_Fetch(&type, &value, &traceback);
            PyErr_NormalizeException(&type, &value, &traceback);
            result = PyObject_CallMethodObjArgs((PyObject *)self, name_set_failure, value, NULL);
            Py_XDECREF(type);
            Py_XDECREF(value);
            Py_XDECREF(traceback);
        }
    } else if (PyList_Size(touched) > 0 || connection->reply == NULL || !PyBytes_Check(connection->reply)
               || PyBytes_Size(connection->reply) > 0) {
        result = PyObject_CallMethodObjArgs((PyObject *)self, name_take_in, begun, touched, NULL);
    } else {
        result = PyObject_CallFunctionObjArgs(self->extend, begun, NULL);
    }
    Py_XDECREF(data);
    Py_XDECREF(begun);
    Py_XDECREF(touched);
    Py_XDECREF(result);
done:
    invoke_aside(self->release);
    return PyErr_Occurred() ? -1 : 1;
}

static PyObject *loop_serve(Loop *self, PyObject *handler);

static PyMethodDef loop_methods[] = {
    {"_prepare", AS_CFUNCTION(loop_prepare), METH_VARARGS, NULL},
    {"_flush", AS_CFUNCTION(loop_flush), METH_NOARGS, NULL},
    {"_send", AS_CFUNCTION(loop_send), METH_VARARGS, NULL},
    {"_serve", AS_CFUNCTION(loop_serve), METH_O, NULL},
    {"_watch", AS_CFUNCTION(loop_watch), METH_NOARGS, NULL},
    {"_unwatch", AS_CFUNCTION(loop_unwatch), METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef loop_members[] = {
    {"_current", T_OBJECT, offsetof(Loop, current), READONLY, NULL},
    {"_reading", T_BOOL, offsetof(Loop, reading), 0, NULL},
    {"_end_of_input", T_BOOL, offsetof(Loop, end_of_input), 0, NULL},
    {"_broken", T_BOOL, offsetof(Loop, broken), 0, NULL},
    {"_ended", T_LONGLONG, offsetof(Loop, ended), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot loop_slots[] = {
    {Py_tp_traverse, loop_traverse},
    {Py_tp_clear, loop_clear},
    {Py_tp_dealloc, loop_dealloc},
    {Py_tp_methods, loop_methods},
    {Py_tp_members, loop_members},
    {0, NULL},
};

static PyType_Spec loop_spec = {
    "gatecrew_worker._speed.Loop", sizeof(Loop), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, loop_slots,
};

/* -- WSGI ------------------------------------------------------------------ */

/* The fields of _streams.Input and of _streams.Errors: last is the file of the
 * one, and the unfinished line of the other. */
typedef struct {
    PyObject_HEAD
    PyObject *loop, *request, *last;
} Stream;

static int
stream_traverse(Stream *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->request);
    Py_VISIT(self->last);
    return 0;
}

static int
stream_clear(Stream *self)
{
    Py_CLEAR(self->loop);
    Py_CLEAR(self->request);
    Py_CLEAR(self->last);
    return 0;
}

static void
stream_dealloc(Stream *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    stream_clear(self);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

static PyMemberDef input_members[] = {
    {"_loop", T_OBJECT, offsetof(Stream, loop), READONLY, NULL},
    {"_request", T_OBJECT, offsetof(Stream, request), READONLY, NULL},
    {"_file", T_OBJECT, offsetof(Stream, last), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyMemberDef errors_members[] = {
    {"_loop", T_OBJECT, offsetof(Stream, loop), READONLY, NULL},
    {"_request", T_OBJECT, offsetof(Stream, request), READONLY, NULL},
    {"_line", T_OBJECT, offsetof(Stream, last), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyType_Slot input_slots[] = {
    {Py_tp_traverse, stream_traverse}, {Py_tp_clear, stream_clear}, {Py_tp_dealloc, stream_dealloc},
    {Py_tp_members, input_members}, {0, NULL},
};

static PyType_Slot errors_slots[] = {
    {Py_tp_traverse, stream_traverse}, {Py_tp_clear, stream_clear}, {Py_tp_dealloc, stream_dealloc},
    {Py_tp_members, errors_members}, {0, NULL},
};

static PyType_Spec input_spec = {
    "gatecrew_worker._speed.Input", sizeof(Stream), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, input_slots,
};

static PyType_Spec errors_spec = {
    "gatecrew_worker._speed.Errors", sizeof(Stream), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE, errors_slots,
};

/* The fields of _wsgi.Response. */
typedef struct {
    PyObject_HEAD
    PyObject *loop, *request, *errors;
    PyObject *write; /* what start_response() returns, made once */
    PyObject *length; /* the application's Content-Length, or None */
    char *head; /* without the empty line that ends it */
    Py_ssize_t head_size, head_room; /* head_size is -1 before start_response() */
    Py_ssize_t declared; /* length, or -1 */
    long long written;
    char is_head, head_sent, body_allowed;
} Response;

static PyObject *reference_start_response; /* of _wsgi.py */
static PyObject *check_status, *check_name, *close_result, *file_wrapper; /* of _wsgi.py */
static PyObject *status_lines; /* status -> its line, as bytes */
static PyObject *names_of_headers; /* name -> "N" or, of Content-Length, "L", and then "NAME: ", as bytes */
static PyObject *name_write;

#define CACHED 1000 /* entries of each */
#define LONGEST_VALUE 1024 /* characters of a header's value; longer ones are left to Python */

static int
response_traverse(Response *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->loop);
    Py_VISIT(self->request);
    Py_VISIT(self->errors);
    Py_VISIT(self->write);
    return 0;
}

static int
response_clear(Response *self)
{
    Py_CLEAR(self->loop);
    Py_CLEAR(self->request);
    Py_CLEAR(self->errors);
    Py_CLEAR(self->write);
    Py_CLEAR(self->length);
    return 0;
}

static void
response_dealloc(Response *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    response_clear(self);
    free(self->head);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* Makes room for so many bytes more of the head. */
static int
reserve_head(Response *self, Py_ssize_t size)
{
    Py_ssize_t used = self->head_size < 0 ? 0 : self->head_size;
    if (self->head_room - used >= size)
        return 0;
    Py_ssize_t room = self->head_room < 512 ? 512 : self->head_room;
    while (room - used < size)
        room *= 2;
    char *head = realloc(self->head, (size_t)room);
    if (head == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    self->head = head;
    self->head_room = room;
    return 0;
}

static int
add_to_head(Response *self, const char *bytes, Py_ssize_t size)
{
    if (reserve_head(self, size) < 0)
        return -1;
    memcpy(self->head + self->head_size, bytes, (size_t)size);
    self->head_size += size;
    return 0;
}

/* _head, as bytes or None */
static PyObject *
response_get_head(Response *self, void *unused)
{
    (void)unused;
    if (self->head_size < 0)
        Py_RETURN_NONE;
    return PyBytes_FromStringAndSize(self->head, self->head_size);
}

static int
response_set_head(Response *self, PyObject *value, void *unused)
{
    (void)unused;
    char *bytes;
    Py_ssize_t size;
    if (value == NULL || value == Py_None) {
        self->head_size = -1;
        return 0;
    }
    if (PyBytes_AsStringAndSize(value, &bytes, &size) < 0)
        return -1;
    self->head_size = 0;
    return add_to_head(self, bytes, size);
}

/* _length, a number or None */
static PyObject *
response_get_length(Response *self, void *unused)
{
    (void)unused;
    if (self->length != NULL) {
        Py_INCREF(self->length);
        return self->length;
    }
    if (self->declared < 0)
        Py_RETURN_NONE;
    return PyLong_FromSsize_t(self->declared);
}

static int
response_set_length(Response *self, PyObject *value, void *unused)
{
    (void)unused;
    PyObject *old = self->length;
    /* As an object too: it may be more than fits a number of C. */
    Py_XINCREF(value);
    self->length = value == Py_None ? NULL : value;
    if (value == Py_None)
        Py_DECREF(value);
    Py_XDECREF(old);
    self->declared = -1;
    return 0;
}

/* The line of a status, borrowed, or NULL, with or without an exception, when
 * that is to be left to Python. */
static PyObject *
status_line(PyObject *status)
{
    if (!PyUnicode_CheckExact(status))
        return NULL;
    PyObject *line = PyDict_GetItemWithError(status_lines, status);
    if (line != NULL || PyErr_Occurred() || PyDict_Size(status_lines) >= CACHED)
        return line;
    PyObject *text = PyObject_CallFunctionObjArgs(check_status, status, NULL);
    PyObject *made = text == NULL ? NULL : PyUnicode_AsLatin1String(text);
    Py_XDECREF(text);
    if (made == NULL || PyDict_SetItem(status_lines, status, made) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    Py_DECREF(made); /* the dictionary has it */
    return made;
}

/* The same for the name of a header. */
static PyObject *
header_start(PyObject *name)
{
    if (!PyUnicode_CheckExact(name))
        return NULL;
    PyObject *start = PyDict_GetItemWithError(names_of_headers, name);
    if (start != NULL || PyErr_Occurred() || PyDict_Size(names_of_headers) >= CACHED)
        return start;
    PyObject *lower = PyObject_CallFunctionObjArgs(check_name, name, NULL);
    if (lower == NULL)
        return NULL;
    int is_length = PyUnicode_CompareWithASCIIString(lower, "content-length") == 0;
    Py_DECREF(lower);
    PyObject *text = PyUnicode_FromFormat(is_length ? "L%U: " : "N%U: ", name);
    PyObject *made = text == NULL ? NULL : PyUnicode_AsLatin1String(text);
    Py_XDECREF(text);
    if (made == NULL || PyDict_SetItem(names_of_headers, name, made) < 0) {
        Py_XDECREF(made);
        return NULL;
    }
    Py_DECREF(made);
    return made;
}

/* Adds one header to the head. Returns 0, or -1, with or without an exception,
 * when that is to be left to Python. */
static int
add_header(Response *self, PyObject *item)
{
    if (!PyTuple_CheckExact(item) || PyTuple_Size(item) != 2)
        return -1;
    PyObject *value = PyTuple_GetItem(item, 1), *start = header_start(PyTuple_GetItem(item, 0));
    if (start == NULL || !PyUnicode_CheckExact(value))
        return -1;
    Py_ssize_t start_size = PyBytes_Size(start), size = PyUnicode_GetLength(value);
    const char *start_bytes = PyBytes_AsString(start);
    Py_UCS4 characters[LONGEST_VALUE];
    if (size < 0 || size > LONGEST_VALUE || (size && PyUnicode_AsUCS4(value, characters, LONGEST_VALUE, 0) == NULL)
        || reserve_head(self, start_size - 1 + size + 2) < 0)
        return -1;
    char *at = put(self->head + self->head_size, start_bytes + 1, (size_t)start_size - 1);
    for (Py_ssize_t i = 0; i < size; i++) {
        Py_UCS4 c = characters[i];
        /* RFC 9110, section 5.5; what is outside latin-1, Python explains. */
        if ((c < 0x20 && c != '\t') || c == 0x7f || c > 0xff)
            return -1;
        *at++ = (char)(unsigned char)c;
    }
    if (start_bytes[0] == 'L') {
        Py_ssize_t length = 0;
        if (size == 0 || size > 15)
            return -1;
        for (Py_ssize_t i = 0; i < size; i++) {
            if (characters[i] < '0' || characters[i] > '9')
                return -1;
            length = length * 10 + (Py_ssize_t)(characters[i] - '0');
        }
        if (self->declared >= 0 && self->declared != length)
            return -1;
        self->declared = length;
    }
    at = put(at, "\r\n", 2);
    self->head_size = at - self->head;
    return 0;
}

/* Encodes a head. Returns 0, or -1 and leaves no trace when that is to be left
 * to Python, or -2 with an exception that is nobody's fault here: an interruption. */
static int
encode_head(Response *self, PyObject *status, PyObject *headers)
{
    PyObject *line = status_line(status);
    self->head_size = 0;
    if (line == NULL || !PyList_CheckExact(headers) || add_to_head(self, PyBytes_AsString(line), PyBytes_Size(line)) < 0)
        goto left;
    /* Its size is looked at each time: a check in Python lets other threads
     * run. Nobody else can drop an item while it is at work here. */
    for (Py_ssize_t i = 0; i < PyList_Size(headers); i++) {
        PyObject *item = PyList_GetItem(headers, i);
        Py_XINCREF(item);
        int failed = item == NULL || add_header(self, item) < 0;
        Py_XDECREF(item);
        if (failed)
            goto left;
    }
    const char *digits = self->head + 8; /* behind "Status: " */
    self->body_allowed = memcmp(digits, "204", 3) != 0 && memcmp(digits, "304", 3) != 0;
    return 0;
left:
    self->head_size = -1;
    self->declared = -1;
    if (PyErr_Occurred() && !PyErr_ExceptionMatches(PyExc_Exception))
        return -2;
    PyErr_Clear();
    return -1;
}

/* start_response(status, headers, exc_info=None), as in _wsgi.py. */
static PyObject *
response_start(Response *self, PyObject *const *args, Py_ssize_t count, PyObject *keywords)
{
    if ((count == 2 || (count == 3 && args[2] == Py_None)) && keywords == NULL && self->head_size < 0) {
        int status = encode_head(self, args[0], args[1]);
        if (status < -1)
            return NULL;
        if (status == 0) {
            if (self->write == NULL && (self->write = PyObject_GetAttr((PyObject *)self, name_write)) == NULL)
                return NULL;
            Py_INCREF(self->write);
            return self->write;
        }
    }
    PyObject *positional = PyTuple_New(count + 1), *named = NULL, *result = NULL;
    if (positional == NULL)
        return NULL;
    Py_INCREF(self);
    PyTuple_SetItem(positional, 0, (PyObject *)self);
    for (Py_ssize_t i = 0; i < count; i++) {
        Py_INCREF(args[i]);
        PyTuple_SetItem(positional, i + 1, args[i]);
    }
    if (keywords != NULL) {
        named = PyDict_New();
        for (Py_ssize_t i = 0; named != NULL && i < PyTuple_Size(keywords); i++)
            if (PyDict_SetItem(named, PyTuple_GetItem(keywords, i), args[count + i]) < 0)
                Py_CLEAR(named);
    }
    if (keywords == NULL || named != NULL)
        result = PyObject_Call(reference_start_response, positional, named);
    Py_DECREF(positional);
    Py_XDECREF(named);
    return result;
}

static PyMethodDef response_methods[] = {
    {"start_response", AS_CFUNCTION(response_start), METH_FASTCALL | METH_KEYWORDS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyMemberDef response_members[] = {
    {"_loop", T_OBJECT, offsetof(Response, loop), READONLY, NULL},
    {"_request", T_OBJECT, offsetof(Response, request), READONLY, NULL},
    {"_errors", T_OBJECT, offsetof(Response, errors), READONLY, NULL},
    {"_is_head", T_BOOL, offsetof(Response, is_head), READONLY, NULL},
    {"_head_sent", T_BOOL, offsetof(Response, head_sent), 0, NULL},
    {"_body_allowed", T_BOOL, offsetof(Response, body_allowed), 0, NULL},
    {"_written", T_LONGLONG, offsetof(Response, written), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static PyGetSetDef response_fields[] = {
    {"_head", (getter)response_get_head, (setter)response_set_head, NULL, NULL},
    {"_length", (getter)response_get_length, (setter)response_set_length, NULL, NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static PyType_Slot response_slots[] = {
    {Py_tp_traverse, response_traverse},
    {Py_tp_clear, response_clear},
    {Py_tp_dealloc, response_dealloc},
    {Py_tp_methods, response_methods},
    {Py_tp_members, response_members},
    {Py_tp_getset, response_fields},
    {0, NULL},
};

static PyType_Spec response_spec = {
    "gatecrew_worker._speed.Response", sizeof(Response), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    response_slots,
};

/* What one request needs besides its environ, and the next one may use again
 * when nobody has kept any of it. */
struct things {
    PyObject *input, *errors, *response, *start;
};

#define BEGINNINGS 8

/* The fields of _wsgi.Handler. */
typedef struct {
    PyObject_HEAD
    PyObject *app, *loop, *root_path, *base;
    PyTypeObject *response_type, *input_type, *errors_type;
    struct things spare;
    /* How parameters began, and the environ that this makes. */
    struct beginning {
        char *bytes;
        Py_ssize_t size;
        PyObject *environ;
        int flags;
    } bare, beginnings[BEGINNINGS];
    int next_beginning;
} Handler;

static PyObject *name_input, *name_errors, *name_url_scheme, *name_proxy, *name_method, *name_scheme, *name_https;
static PyObject *text_https, *name_mount, *name_fail, *name_conclude;

static int
handler_traverse(Handler *self, visitproc visit, void *arg)
{
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(self->app);
    Py_VISIT(self->loop);
    Py_VISIT(self->base);
    Py_VISIT(self->response_type);
    Py_VISIT(self->input_type);
    Py_VISIT(self->errors_type);
    Py_VISIT(self->spare.input);
    Py_VISIT(self->spare.errors);
    Py_VISIT(self->spare.response);
    Py_VISIT(self->spare.start);
    for (int i = 0; i < BEGINNINGS; i++)
        Py_VISIT(self->beginnings[i].environ);
    return 0;
}

static int
handler_clear(Handler *self)
{
    Py_CLEAR(self->app);
    Py_CLEAR(self->loop);
    Py_CLEAR(self->root_path);
    Py_CLEAR(self->base);
    Py_CLEAR(self->response_type);
    Py_CLEAR(self->input_type);
    Py_CLEAR(self->errors_type);
    Py_CLEAR(self->spare.start);
    Py_CLEAR(self->spare.response);
    Py_CLEAR(self->spare.input);
    Py_CLEAR(self->spare.errors);
    for (int i = 0; i < BEGINNINGS; i++)
        Py_CLEAR(self->beginnings[i].environ);
    return 0;
}

static void
handler_dealloc(Handler *self)
{
    PyTypeObject *type = Py_TYPE(self);
    PyObject_GC_UnTrack(self);
    handler_clear(self);
    for (int i = 0; i < BEGINNINGS; i++)
        free(self->beginnings[i].bytes);
    PyObject_GC_Del(self);
    Py_DECREF(type);
}

/* Makes room in a dictionary for the variables that will come: one that has
 * had more entries keeps its table when it is copied, as long as most of them
 * are there. */
static int
widen(PyObject *environ)
{
    PyObject *filler = PyLong_FromLong(0);
    if (filler == NULL)
        return -1;
    int status = 0;
    Py_ssize_t used = PyDict_Size(environ), enough = 22; /* of a table for 42 */
    if (used >= 16 && used < enough) {
        for (Py_ssize_t i = used; i < enough && status == 0; i++) {
            PyObject *key = PyLong_FromSsize_t(i);
            status = key == NULL ? -1 : PyDict_SetItem(environ, key, filler);
            Py_XDECREF(key);
        }
        for (Py_ssize_t i = used; i < enough && status == 0; i++) {
            PyObject *key = PyLong_FromSsize_t(i);
            status = key == NULL ? -1 : PyDict_DelItem(environ, key);
            Py_XDECREF(key);
        }
    }
    Py_DECREF(filler);
    return status;
}

/* Finds how a block of parameters begins: with what the gateway says of the
 * server, which it puts first. Returns NULL with an exception. */
static struct beginning *
find_beginning(Handler *self, const char *block, Py_ssize_t size)
{
    for (int i = 0; i < BEGINNINGS; i++) {
        struct beginning *known = &self->beginnings[i];
        if (known->environ != NULL && known->size <= size && memcmp(known->bytes, block, (size_t)known->size) == 0)
            return known;
    }
    struct pair pair;
    Py_ssize_t pos = 0, end = 0;
    int flags = 0, more;
    PyObject *environ = PyDict_Copy(self->base);
    if (environ == NULL)
        return NULL;
    while ((more = read_pair(block, size, &pos, &pair)) > 0 && pair.name_size <= CACHED_NAME) {
        struct slot *slot = slot_of(pair.name, pair.name_size);
        if (!(slot->flags & IS_OF_SERVER) || slot->name_size != pair.name_size
            || memcmp(slot->name_bytes, pair.name, (size_t)pair.name_size) != 0)
            break;
        if (add_pair(&pair, environ, &flags) < 0) {
            Py_DECREF(environ);
            return NULL;
        }
        end = pos;
    }
    if (end == 0) {
        self->bare.environ = self->base; /* borrowed */
        Py_DECREF(environ);
        return &self->bare;
    }
    char *bytes = malloc((size_t)end);
    if (bytes == NULL || widen(environ) < 0) {
        if (bytes == NULL)
            PyErr_NoMemory();
        free(bytes);
        Py_DECREF(environ);
        return NULL;
    }
    memcpy(bytes, block, (size_t)end);
    struct beginning *place = &self->beginnings[self->next_beginning];
    self->next_beginning = (self->next_beginning + 1) % BEGINNINGS;
    PyObject *old = place->environ;
    free(place->bytes);
    *place = (struct beginning){bytes, end, environ, flags};
    Py_XDECREF(old);
    return place;
}

/* Makes the environ of a block of parameters. */
static PyObject *
environ_of(Handler *self, const char *block, Py_ssize_t size, struct things *things)
{
    struct beginning *known = find_beginning(self, block, size);
    if (known == NULL)
        return NULL;
    /* While it is copied another thread may learn of another beginning. */
    PyObject *model = known->environ;
    Py_ssize_t pos = known->size;
    int flags = known->flags;
    Py_INCREF(model);
    PyObject *environ = PyDict_Copy(model);
    Py_DECREF(model);
    if (environ == NULL)
        return NULL;
    if (add_pairs(block, size, pos, environ, &flags) < 0)
        goto failed;
    if (flags & IS_PROXY && PyDict_DelItem(environ, name_proxy) < 0) /* CVE-2016-5385; the gateway sends none */
        goto failed;
    if (flags & IS_SCHEME) {
        PyObject *scheme = PyDict_GetItemWithError(environ, name_scheme);
        PyObject *https = PyDict_GetItemWithError(environ, name_https);
        if (PyErr_Occurred())
            goto failed;
        if (((scheme != NULL && PyUnicode_CompareWithASCIIString(scheme, "https") == 0)
             || (https != NULL
                 && (PyUnicode_CompareWithASCIIString(https, "on") == 0 || PyUnicode_CompareWithASCIIString(https, "1") == 0)))
            && PyDict_SetItem(environ, name_url_scheme, text_https) < 0)
            goto failed;
    }
    if (PyUnicode_GetLength(self->root_path) != 0) {
        PyObject *result = PyObject_CallMethodObjArgs((PyObject *)self, name_mount, environ, NULL);
        if (result == NULL)
            goto failed;
        Py_DECREF(result);
    }
    if (PyDict_SetItem(environ, name_input, things->input) < 0 || PyDict_SetItem(environ, name_errors, things->errors) < 0)
        goto failed;
    return environ;
failed:
    Py_DECREF(environ);
    return NULL;
}

/* Makes the environ of a request. */
static PyObject *
make_environ(Handler *self, Request *request, struct things *things)
{
    char *block;
    Py_ssize_t size, start = 0;
    if (request->params == NULL || PyBytes_AsStringAndSize(request->params, &block, &size) < 0) {
        if (!PyErr_Occurred())
            PyErr_SetString(PyExc_TypeError, "a request without parameters");
        return NULL;
    }
    if (request->params_size >= 0) {
        start = request->params_start;
        size = request->params_size;
    }
    /* Who asks for them replaces them, and any object that is made may run code
     * that lets others ask: a garbage collection (until Python 3.11). */
    PyObject *params = request->params;
    Py_INCREF(params);
    PyObject *environ = environ_of(self, block + start, size, things);
    Py_DECREF(params);
    return environ;
}

static void
drop_things(struct things *things)
{
    if (things->response != NULL)
        Py_CLEAR(CAST(Response, things->response)->write); /* which holds the response */
    Py_CLEAR(things->start);
    Py_CLEAR(things->response);
    Py_CLEAR(things->input);
    Py_CLEAR(things->errors);
}

/* Makes, or takes from the last request, what a request needs. */
static int
take_things(Handler *self, PyObject *request, struct things *things)
{
    *things = self->spare;
    self->spare = (struct things){0};
    if (things->start == NULL) {
        things->input = PyType_GenericAlloc(self->input_type, 0);
        things->errors = PyType_GenericAlloc(self->errors_type, 0);
        things->response = PyType_GenericAlloc(self->response_type, 0);
        things->start = things->response == NULL ? NULL : PyObject_GetAttrString(things->response, "start_response");
        if (things->input == NULL || things->errors == NULL || things->start == NULL) {
            drop_things(things);
            return -1;
        }
        set(&CAST(Stream, things->input)->loop, self->loop);
        set(&CAST(Stream, things->errors)->loop, self->loop);
        set(&CAST(Stream, things->errors)->last, empty_text);
        set(&CAST(Response, things->response)->loop, self->loop);
    }
    Response *response = CAST(Response, things->response);
    set(&CAST(Stream, things->input)->request, request);
    set(&CAST(Stream, things->errors)->request, request);
    set(&response->request, request);
    set(&response->errors, things->errors);
    response->head_size = response->declared = -1;
    response->written = 0;
    response->is_head = response->head_sent = 0;
    response->body_allowed = 1;
    return 0;
}

/* Gives back what a request has needed, for the next one when nobody else
 * refers to it. */
static void
leave_things(Handler *self, struct things *things)
{
    Response *response = CAST(Response, things->response);
    Stream *input = CAST(Stream, things->input), *errors = CAST(Stream, things->errors);
    if (self->spare.start == NULL && Py_REFCNT(things->start) == 1
        && (response->write == NULL || Py_REFCNT(response->write) == 1)
        && Py_REFCNT(things->response) == 2 + (response->write != NULL) && Py_REFCNT(things->input) == 1
        && Py_REFCNT(things->errors) == 2) {
        Py_CLEAR(response->request);
        Py_CLEAR(response->errors);
        Py_CLEAR(response->length);
        Py_CLEAR(input->request);
        Py_CLEAR(input->last);
        Py_CLEAR(errors->request);
        set(&errors->last, empty_text);
        if (response->head_room > 8192) {
            free(response->head);
            response->head = NULL;
            response->head_room = 0;
        }
        if (self->spare.start == NULL) { /* what was cleared may have run code */
            self->spare = *things;
            return;
        }
    }
    drop_things(things);
}

/* Whether nothing is unusual about a request that is about to send. */
static int
is_usual(Loop *loop, Response *response, Request *request)
{
    return response->head_size >= 0 && !response->is_head && response->body_allowed && response->length == NULL && !request->aborted
        && !request->ended && !loop->broken && (request->interruption == NULL || request->interruption == Py_None);
}

/* Whether there is no line in wsgi.errors that waits for its end. */
static int
has_no_line(PyObject *errors)
{
    PyObject *line = CAST(Stream, errors)->last;
    return line != NULL && PyUnicode_Check(line) && PyUnicode_GetLength(line) == 0;
}

/* Gives an id back, before the END_REQUEST is sent: the gateway may use it
 * again as soon as it has that. */
static void
close_request(Loop *loop, Request *request)
{
    PyObject *requests = CAST(Connection, loop->connection)->requests;
    if (requests != NULL && PyDict_DelItem(requests, request->key) < 0)
        PyErr_Clear();
}

/* Ends an answer whose whole body is the given pieces. Returns 1, 0 when this is
 * to be left to Python, without having done anything, and -1 with an exception. */
static int
finish(Handler *self, Response *response, Request *request, PyObject *pieces, Py_ssize_t count)
{
    Loop *loop = CAST(Loop, self->loop);
    Py_ssize_t size = 0;
    if (count > 16 || !is_usual(loop, response, request) || response->head_sent || response->written != 0
        || !has_no_line(response->errors))
        return 0;
    int is_list = PyList_CheckExact(pieces);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *piece = is_list ? PyList_GetItem(pieces, i) : PyTuple_GetItem(pieces, i);
        if (piece == NULL || !PyBytes_CheckExact(piece)) {
            PyErr_Clear();
            return 0;
        }
        size += PyBytes_Size(piece);
        if (size > RECORD)
            return 0;
    }
    char length_line[48] = "";
    size_t length_size = 0;
    if (response->declared < 0 && count == 1)
        length_size = (size_t)snprintf(length_line, sizeof length_line, "Content-Length: %zd\r\n", size);
    else if (response->declared >= 0 && response->declared != size)
        return 0;
    size_t content = (size_t)response->head_size + length_size + 2 + (size_t)size;
    if (content > RECORD || (long long)content > request->granted - request->sent)
        return 0;
    char *at = reserve(&loop->output, 8 + content + 16);
    if (at == NULL)
        return -1;
    request->guarded = 1; /* for good: its thread will be at another request */
    request->sent += (long long)content;
    request->ended = 1;
    response->head_sent = 1;
    response->written = size;
    at = put_header(at, STDOUT, request->id, content);
    at = put(at, response->head, (size_t)response->head_size);
    at = put(at, length_line, length_size);
    at = put(at, "\r\n", 2);
    for (Py_ssize_t i = 0; i < count; i++) {
        PyObject *piece = is_list ? PyList_GetItem(pieces, i) : PyTuple_GetItem(pieces, i);
        at = put(at, PyBytes_AsString(piece), (size_t)PyBytes_Size(piece));
    }
    put_end(at, loop, request);
    close_request(loop, request);
    loop->output.used += 8 + content + 16;
    loop->output.ended++;
    return flush_or_hold(loop) < 0 ? -1 : 1;
}

/* Ends a request whose application has raised the exception that is set. */
static int
fail(PyObject *response)
{
    PyObject *type, *value, *traceback, *result = NULL;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_NormalizeException(&type, &value, &traceback);
    if (traceback != NULL)
        PyException_SetTraceback(value, traceback);
    result = PyObject_CallMethodObjArgs(response, name_fail, value, NULL);
    Py_XDECREF(type);
    Py_XDECREF(value);
    Py_XDECREF(traceback);
    Py_XDECREF(result);
    return result == NULL ? -1 : 0;
}

/* Sends the head and the first part of a body, as Response.write does. Returns 1,
 * 0 when this is to be left to Python, without having done anything, and -1
 * with an exception. */
static int
write_first(Loop *loop, Response *response, Request *request, PyObject *part)
{
    if (!PyBytes_CheckExact(part) || !is_usual(loop, response, request) || response->head_sent || response->written || request->sent)
        return 0;
    Py_ssize_t size = PyBytes_Size(part);
    size_t content = (size_t)response->head_size + 2 + (size_t)size;
    if (size > RECORD || content > RECORD || (long long)content > request->granted
        || (response->declared >= 0 && size > response->declared))
        return 0;
    char *at = reserve(&loop->output, 8 + content);
    if (at == NULL)
        return -1;
    request->guarded = 1;
    request->sent += (long long)content;
    response->head_sent = 1;
    response->written = size;
    at = put_header(at, STDOUT, request->id, content);
    at = put(at, response->head, (size_t)response->head_size);
    at = put(at, "\r\n", 2);
    put(at, PyBytes_AsString(part), (size_t)size);
    loop->output.used += 8 + content;
    /* A body that is whole, for its length was said, may wait as well: Flask's and
     * Django's are never a list. */
    int whole = response->declared >= 0 && size == response->declared;
    int status = (whole ? flush_or_hold(loop) : flush(loop)) < 0 ? -1 : 1;
    request->guarded = 0;
    return status;
}

/* Sends the parts of a body as an iterable gives them. Returns -1 with an
 * exception. */
static int
write_parts(Loop *loop, Response *response, Request *request, PyObject *parts)
{
    PyObject *iterator = PyObject_GetIter(parts), *part;
    if (iterator == NULL)
        return -1;
    int status = 0;
    while (status == 0 && (part = PyIter_Next(iterator)) != NULL) {
        if (!PyBytes_CheckExact(part) || PyBytes_Size(part) > 0) {
            status = write_first(loop, response, request, part);
            if (status == 0) {
                PyObject *left = PyObject_CallMethodObjArgs((PyObject *)response, name_write, part, NULL);
                status = left == NULL ? -1 : 0;
                Py_XDECREF(left);
            } else if (status > 0) {
                status = 0;
            }
        }
        Py_DECREF(part);
    }
    Py_DECREF(iterator);
    return PyErr_Occurred() ? -1 : 0;
}

/* Answers with an iterable that the application has returned, as Response.answer
 * does. */
static int
answer_with_parts(Handler *self, Response *response, Request *request, PyObject *parts)
{
    Loop *loop = CAST(Loop, self->loop);
    PyObject *type, *value, *traceback;
    int status = write_parts(loop, response, request, parts);
    PyErr_Fetch(&type, &value, &traceback);
    PyObject *left = PyObject_CallFunctionObjArgs(close_result, parts, response->errors, NULL);
    if (left == NULL && status == 0) {
        status = -1;
    } else {
        if (left == NULL)
            PyErr_Clear();
        PyErr_Restore(type, value, traceback);
    }
    Py_XDECREF(left);
    if (status < 0)
        return fail((PyObject *)response);
    if (is_usual(loop, response, request) && response->head_sent && response->written >= response->declared
        && has_no_line(response->errors)) {
        char *at = reserve(&loop->output, 16);
        if (at == NULL)
            return -1;
        request->guarded = 1;
        request->ended = 1;
        put_end(at, loop, request);
        close_request(loop, request);
        loop->output.used += 16;
        loop->output.ended++;
        return flush_or_hold(loop);
    }
    left = PyObject_CallMethodObjArgs((PyObject *)self, name_conclude, (PyObject *)response, NULL);
    Py_XDECREF(left);
    return left == NULL ? -1 : 0;
}

/* Answers one request, as _wsgi.Handler does. */
static int
handle(Handler *self, Request *request)
{
    struct things things;
    int status = -1;
    if (take_things(self, (PyObject *)request, &things) < 0)
        return -1;
    Response *response = CAST(Response, things.response);
    PyObject *environ = make_environ(self, request, &things);
    if (environ == NULL) {
        drop_things(&things);
        return -1;
    }
    PyObject *method = PyDict_GetItemWithError(environ, name_method);
    int get = method != NULL && PyUnicode_CompareWithASCIIString(method, "GET") == 0;
    if (method != NULL && PyUnicode_CompareWithASCIIString(method, "HEAD") == 0)
        response->is_head = 1;
    /* _HELD_METHODS of _wsgi.py */
    Loop *loop = CAST(Loop, self->loop);
    loop->alone = !get && !response->is_head;
    if (loop->alone && flush(loop) < 0) {
        Py_DECREF(environ);
        drop_things(&things);
        return -1;
    }
    PyObject *args = PyTuple_Pack(2, environ, things.start);
    PyObject *app = self->app;
    Py_INCREF(app);
    PyObject *result = args == NULL ? NULL : PyObject_Call(app, args, NULL);
    Py_DECREF(app);
    Py_XDECREF(args);
    if (result == NULL) {
        status = fail(things.response);
    } else {
        status = 0;
        if (PyList_CheckExact(result) || PyTuple_CheckExact(result)) {
            /* All of it is there, and there is no close(): one send. */
            status = finish(self, response, request, result, PySequence_Size(result));
        } else if (Py_TYPE(result) != (PyTypeObject *)file_wrapper) {
            status = answer_with_parts(self, response, request, result);
            if (status == 0)
                status = 1;
        }
        if (status == 0) {
            PyObject *left = PyObject_CallMethodObjArgs((PyObject *)self, name_conclude, things.response, result, NULL);
            status = left == NULL ? -1 : 1;
            Py_XDECREF(left);
        }
    }
    /* What the application has left of these may run its code when it goes;
     * an exception that is on its way stays. */
    PyObject *type, *value, *traceback;
    PyErr_Fetch(&type, &value, &traceback);
    Py_XDECREF(result);
    Py_DECREF(environ);
    leave_things(self, &things);
    PyErr_Restore(type, value, traceback);
    return status < 0 ? -1 : 0;
}

static int
is_prepared(Handler *self)
{
    if (self->app == NULL)
        PyErr_SetString(PyExc_TypeError, "a Handler that was not initialised");
    return self->app != NULL;
}

/* handler(request) */
static PyObject *
handler_call(Handler *self, PyObject *args, PyObject *kwargs)
{
    PyObject *request;
    (void)kwargs;
    if (!PyArg_ParseTuple(args, "O!:Handler", RequestType, &request) || !is_prepared(self) || handle(self, CAST(Request, request)) < 0)
        return NULL;
    Py_RETURN_NONE;
}

/* _prepare(app, loop, root_path, base, response_type, input_type, errors_type):
 * takes what _wsgi.Handler has made. */
static PyObject *
handler_prepare(Handler *self, PyObject *args)
{
    PyObject *app, *loop, *root_path, *base;
    PyTypeObject *response, *input, *errors;
    if (!PyArg_ParseTuple(args, "OO!UO!O!O!O!:_prepare", &app, LoopType, &loop, &root_path, &PyDict_Type, &base, &PyType_Type,
                          &response, &PyType_Type, &input, &PyType_Type, &errors))
        return NULL;
    if (!PyType_IsSubtype(response, ResponseType) || !PyType_IsSubtype(input, InputType) || !PyType_IsSubtype(errors, ErrorsType)
        || CAST(Loop, loop)->popleft == NULL) {
        PyErr_SetString(PyExc_TypeError, "a Handler of the C extension needs its own Response, Input, Errors, and a Loop that is prepared");
        return NULL;
    }
    set(&self->app, app);
    set(&self->loop, loop);
    set(&self->root_path, root_path);
    set(&self->base, base);
    set((PyObject **)&self->response_type, (PyObject *)response);
    set((PyObject **)&self->input_type, (PyObject *)input);
    set((PyObject **)&self->errors_type, (PyObject *)errors);
    Py_RETURN_NONE;
}

/* _environ(request), as in _wsgi.py */
static PyObject *
handler_environ(Handler *self, PyObject *request)
{
    struct things things;
    if (!is_prepared(self))
        return NULL;
    if (!PyObject_TypeCheck(request, RequestType)) {
        PyErr_SetString(PyExc_TypeError, "not a Request of the C extension");
        return NULL;
    }
    if (take_things(self, request, &things) < 0)
        return NULL;
    PyObject *environ = make_environ(self, CAST(Request, request), &things);
    drop_things(&things);
    return environ;
}

static PyMethodDef handler_methods[] = {
    {"_prepare", AS_CFUNCTION(handler_prepare), METH_VARARGS, NULL},
    {"_environ", AS_CFUNCTION(handler_environ), METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot handler_slots[] = {
    {Py_tp_traverse, handler_traverse},
    {Py_tp_clear, handler_clear},
    {Py_tp_dealloc, handler_dealloc},
    {Py_tp_call, handler_call},
    {Py_tp_methods, handler_methods},
    {0, NULL},
};

static PyType_Spec handler_spec = {
    "gatecrew_worker._speed.Handler", sizeof(Handler), 0, Py_TPFLAGS_DEFAULT | Py_TPFLAGS_HAVE_GC | Py_TPFLAGS_BASETYPE,
    handler_slots,
};

/* Lets go of the roles that others may wait for, as _threads.Loop._work does
 * when it has taken a request. */
static int
pass_on(Loop *self)
{
    if (invoke(self->acquire) < 0)
        return -1;
    int status = call((PyObject *)self, name_pass_on);
    invoke_aside(self->release);
    return status;
}

/* _serve(handler): what _threads.Loop._work does where there is one thread.
 * Returns at the end of input. An exception is about the request that _current
 * then is. */
static PyObject *
loop_serve(Loop *self, PyObject *handler)
{
    if (!PyObject_TypeCheck(handler, HandlerType) || CAST(Handler, handler)->loop != (PyObject *)self) {
        PyErr_SetString(PyExc_TypeError, "_serve() takes this loop's Handler");
        return NULL;
    }
    self->now = clock_now();
    self->thread = PyThread_get_thread_ident();
    Py_CLEAR(self->current);
    for (;;) {
        Py_ssize_t waiting = PyObject_Size(self->ready);
        if (waiting < 0)
            goto failed;
        if (waiting == 0) {
            if (flush(self) < 0)
                goto failed;
            if (self->end_of_input)
                break;
            if (read_block(self) < 0)
                goto failed;
            self->now = clock_now();
            continue;
        }
        PyObject *request = PyObject_CallObject(self->popleft, NULL);
        if (request == NULL) {
            if (!PyErr_ExceptionMatches(PyExc_IndexError))
                goto failed;
            PyErr_Clear(); /* it was given back meanwhile */
            continue;
        }
        if (!PyObject_TypeCheck(request, RequestType)) {
            Py_DECREF(request);
            PyErr_SetString(PyExc_TypeError, "a request that is not of the C extension");
            goto failed;
        }
        Request *current = CAST(Request, request);
        self->current = request; /* which it owns now */
        if ((PyList_Size(self->blocked) > 0 || PyList_Size(self->idle) > 0) && pass_on(self) < 0)
            goto failed;
        if (current->aborted) {
            PyObject *ended = PyObject_CallMethodObjArgs((PyObject *)self, name_end, request, empty_bytes, one, NULL);
            Py_XDECREF(ended);
            if (ended == NULL)
                goto failed;
            Py_CLEAR(self->current);
            continue;
        }
        current->began = self->now;
        current->thread = self->thread;
        current->guarded = 0;
        if (handle(CAST(Handler, handler), current) < 0)
            goto failed;
        Py_CLEAR(self->current);
        self->now = clock_now();
        if (self->output.used && self->now - self->held_since > HELD_TIME && flush(self) < 0)
            goto failed;
    }
    self->thread = 0;
    Py_RETURN_NONE;
failed:
    self->thread = 0;
    return NULL;
}

/* -- ASGI ------------------------------------------------------------------
 *
 * What _async.py, _scope.py and _asgi.py do for a usual request. The types here
 * are the fields of classes of Python, which inherit from them (_asgi_native.py),
 * so that a method finds what it knows whoever has set it. Each function that
 * changes them holds the interpreter's lock from its first change to its last:
 * the thread that gives requests back sees all of it or nothing. */

static PyObject *current_task, *new_deque, *describe_tls;
static PyObject *first_lines; /* status -> the first line of a head */
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
} AsyncRequest;

static PyTypeObject *AsyncRequestType;

static PyMemberDef async_request_members[] = {
    {"id", T_INT, offsetof(AsyncRequest, id), 0, NULL},
    {"role", T_INT, offsetof(AsyncRequest, role), 0, NULL},
    {"params", T_OBJECT, offsetof(AsyncRequest, params), 0, NULL},
    {"input", T_OBJECT, offsetof(AsyncRequest, input), 0, NULL},
    {"input_ended", T_BOOL, offsetof(AsyncRequest, input_ended), 0, NULL},
    {"input_received", T_LONGLONG, offsetof(AsyncRequest, input_received), 0, NULL},
    {"input_read", T_LONGLONG, offsetof(AsyncRequest, input_read), 0, NULL},
    {"input_granted", T_LONGLONG, offsetof(AsyncRequest, input_granted), 0, NULL},
    {"granted", T_LONGLONG, offsetof(AsyncRequest, granted), 0, NULL},
    {"sent", T_LONGLONG, offsetof(AsyncRequest, sent), 0, NULL},
    {"aborted", T_BOOL, offsetof(AsyncRequest, aborted), 0, NULL},
    {"ended", T_BOOL, offsetof(AsyncRequest, ended), 0, NULL},
    {"thread", T_ULONG, offsetof(AsyncRequest, thread), 0, NULL},
    {"guarded", T_BOOL, offsetof(AsyncRequest, guarded), 0, NULL},
    {"interruption", T_OBJECT, offsetof(AsyncRequest, interruption), 0, NULL},
    {"task", T_OBJECT, offsetof(AsyncRequest, task), 0, NULL},
    {"waiters", T_OBJECT, offsetof(AsyncRequest, waiters), 0, NULL},
    {"unsent", T_OBJECT, offsetof(AsyncRequest, unsent), 0, NULL},
    {"feed", T_OBJECT, offsetof(AsyncRequest, feed), 0, NULL},
    {"closed", T_BOOL, offsetof(AsyncRequest, closed), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

#define INPUT_WINDOW 131072 /* of _connection.py */
#define LARGEST_RECORD 32768 /* STDOUT content of one, as in _async.py */

/* Makes a request that has no parameters yet. Steals what its input is put in,
 * which may be NULL. */
static AsyncRequest *
make_request(PyTypeObject *type, int id, long long window, int role, PyObject *input)
{
    AsyncRequest *request = input == NULL ? NULL : (AsyncRequest *)PyType_GenericAlloc(type, 0);
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
async_request_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
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
async_request_traverse(PyObject *self, visitproc visit, void *arg)
{
    AsyncRequest *request = (AsyncRequest *)self;
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
async_request_clear(PyObject *self)
{
    AsyncRequest *request = (AsyncRequest *)self;
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
async_request_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    async_request_clear(self);
    release(self);
}

static PyType_Slot async_request_slots[] = {
    {Py_tp_new, async_request_new},       {Py_tp_dealloc, async_request_dealloc}, {Py_tp_traverse, async_request_traverse},
    {Py_tp_clear, async_request_clear},   {Py_tp_members, async_request_members}, {0, NULL},
};

static PyType_Spec async_request_spec = {
    "gatecrew_worker._speed.AsyncRequest", sizeof(AsyncRequest), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, async_request_slots,
};

/* The fields of Loop that every answer needs. */
typedef struct {
    PyObject_HEAD
    PyObject *out, *connection, *requests, *ready, *running;
    unsigned long thread;
    char holding, broken, end_of_input;
} AsyncLoop;

static PyTypeObject *AsyncLoopType;

static PyMemberDef async_loop_members[] = {
    {"_out", T_OBJECT, offsetof(AsyncLoop, out), 0, NULL},
    {"_connection", T_OBJECT, offsetof(AsyncLoop, connection), 0, NULL},
    {"_requests", T_OBJECT, offsetof(AsyncLoop, requests), 0, NULL},
    {"_ready", T_OBJECT, offsetof(AsyncLoop, ready), 0, NULL},
    {"_running", T_OBJECT, offsetof(AsyncLoop, running), 0, NULL},
    {"_thread", T_ULONG, offsetof(AsyncLoop, thread), 0, NULL},
    {"_holding", T_BOOL, offsetof(AsyncLoop, holding), 0, NULL},
    {"_broken", T_BOOL, offsetof(AsyncLoop, broken), 0, NULL},
    {"end_of_input", T_BOOL, offsetof(AsyncLoop, end_of_input), 0, NULL},
    {NULL, 0, 0, 0, NULL},
};

static int
async_loop_traverse(PyObject *self, visitproc visit, void *arg)
{
    AsyncLoop *loop = (AsyncLoop *)self;
    Py_VISIT(Py_TYPE(self));
    Py_VISIT(loop->out);
    Py_VISIT(loop->connection);
    Py_VISIT(loop->requests);
    Py_VISIT(loop->ready);
    Py_VISIT(loop->running);
    return 0;
}

static int
async_loop_clear(PyObject *self)
{
    AsyncLoop *loop = (AsyncLoop *)self;
    clear(&loop->out);
    clear(&loop->connection);
    clear(&loop->requests);
    clear(&loop->ready);
    clear(&loop->running);
    return 0;
}

static void
async_loop_dealloc(PyObject *self)
{
    PyObject_GC_UnTrack(self);
    async_loop_clear(self);
    release(self);
}

static PyObject *
async_loop_new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    (void)args;
    (void)kwargs;
    return PyType_GenericAlloc(type, 0);
}

/* Whether nobody wants the request's answer, as Loop.gone says. */
static int
is_gone(AsyncLoop *loop, AsyncRequest *request)
{
    return request->aborted || request->closed || loop->end_of_input || loop->broken;
}

/* Takes an open request away. */
static int
forget_request(AsyncLoop *loop, AsyncRequest *request)
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
    AsyncLoop *loop = (AsyncLoop *)self;
    if (!PyObject_TypeCheck(argument, AsyncRequestType) || loop->ready == NULL || !PyDict_Check(loop->ready)) {
        PyErr_SetString(PyExc_TypeError, "that is no request of this loop");
        return NULL;
    }
    AsyncRequest *request = (AsyncRequest *)argument;
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
    AsyncLoop *loop = (AsyncLoop *)self;
    if (!PyObject_TypeCheck(argument, AsyncRequestType) || loop->running == NULL || !PySet_Check(loop->running)) {
        PyErr_SetString(PyExc_TypeError, "that is no request of this loop");
        return NULL;
    }
    /* Its context refers to the request: without the task, there is no cycle. */
    PyObject *task = ((AsyncRequest *)argument)->task;
    ((AsyncRequest *)argument)->task = NULL;
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
static AsyncRequest *
as_request(PyObject *object)
{
    if (object != NULL && PyObject_TypeCheck(object, AsyncRequestType))
        return (AsyncRequest *)object;
    PyErr_SetString(PyExc_TypeError, "that is no request");
    return NULL;
}

/* gone(request): whether nobody wants its answer, and no input will come. */
static PyObject *
loop_gone(PyObject *self, PyObject *argument)
{
    AsyncRequest *request = as_request(argument);
    return request == NULL ? NULL : PyBool_FromLong(is_gone((AsyncLoop *)self, request));
}

/* grant(request, read): only looks whether there is something to grant. */
static PyObject *
loop_grant(PyObject *self, PyObject *args)
{
    PyObject *object, *read;
    if (!PyArg_UnpackTuple(args, "grant", 2, 2, &object, &read))
        return NULL;
    AsyncRequest *request = as_request(object);
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
    AsyncLoop *loop = (AsyncLoop *)self;
    PyObject *object, *data;
    char *text;
    if (!PyArg_UnpackTuple(args, "write_soon", 2, 2, &object, &data))
        return NULL;
    AsyncRequest *request = as_request(object);
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
    AsyncRequest *request = as_request(argument);
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

static PyMethodDef async_loop_methods[] = {
    {"take", loop_take, METH_O, NULL},
    {"done", loop_done, METH_O, NULL},
    {"gone", loop_gone, METH_O, NULL},
    {"grant", loop_grant, METH_VARARGS, NULL},
    {"write_soon", loop_write_soon, METH_VARARGS, NULL},
    {"_touch", loop_touch, METH_O, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot async_loop_slots[] = {
    {Py_tp_new, async_loop_new},         {Py_tp_dealloc, async_loop_dealloc}, {Py_tp_traverse, async_loop_traverse},
    {Py_tp_clear, async_loop_clear},     {Py_tp_members, async_loop_members}, {Py_tp_methods, async_loop_methods},
    {0, NULL},
};

static PyType_Spec async_loop_spec = {
    "gatecrew_worker._speed.AsyncLoop", sizeof(AsyncLoop), 0,
    Py_TPFLAGS_DEFAULT | Py_TPFLAGS_BASETYPE | Py_TPFLAGS_HAVE_GC, async_loop_slots,
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
    if (!PyType_IsSubtype((PyTypeObject *)type, AsyncRequestType)) {
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
        AsyncRequest *request = make_request((PyTypeObject *)type, high << 8 | low, window, 1, no_items);
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
#define LONGEST_KEPT 256
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
    if (pair != NULL && name != NULL && size <= LONGEST_KEPT && !name->is_secret) {
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

#define MOST_BEGINNINGS 8 /* of _scope.py */

/* The fields of Scopes, and what it has learnt. */
typedef struct {
    PyObject_HEAD
    PyObject *root, *state;
    int count;
    struct {
        PyObject *text; /* how the parameters begin */
        PyObject *template; /* the scope, as far as that says */
        char is_secure, trails;
    } beginnings[MOST_BEGINNINGS];
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
        while (scopes->count >= MOST_BEGINNINGS) {
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
read_parameters(const char *block, Py_ssize_t size, Py_ssize_t pos, Value *variables, Value *fields, PyObject **own,
                int *count, PyObject **of_tls)
{
    while (pos < size) {
        Py_ssize_t name_size = read_length(block, size, &pos);
        Py_ssize_t value_size = name_size < 0 ? -1 : read_length(block, size, &pos);
        if (value_size < 0 || name_size > size - pos || value_size > size - pos - name_size)
            return 1; /* the Python code complains of it */
        const char *text = block + pos;
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
    AsyncRequest *request = (AsyncRequest *)argument;
    char *text;
    Py_ssize_t size, root_size;
    if (!PyObject_TypeCheck(argument, AsyncRequestType) || request->role != 1 || request->params == NULL || !PyBytes_Check(request->params)
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
    int unusual = read_parameters(text, size, start, variables, fields, own, &count, &of_tls);
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
    {Py_tp_new, async_loop_new},           {Py_tp_dealloc, scopes_dealloc}, {Py_tp_traverse, scopes_traverse},
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
    AsyncLoop *loop;
    AsyncRequest *request;
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
        || !PyArg_ParseTuple(args, "O!O!O!", AsyncLoopType, &loop, AsyncRequestType, &request, &PyDict_Type, &scope)) {
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
    exchange->loop = (AsyncLoop *)loop;
    Py_INCREF(request);
    exchange->request = (AsyncRequest *)request;
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
encode_fields(char *to, PyObject *first, PyObject *headers, long long *length)
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
    PyObject *first = status != NULL && first_lines != NULL && PyLong_CheckExact(status) ? PyDict_GetItemWithError(first_lines, status) : NULL;
    if (first == NULL || !PyBytes_CheckExact(first))
        return 0;
    char to[LONGEST_HEAD];
    long long length = -1;
    Py_ssize_t size = encode_fields(to, first, headers, &length);
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
exchange_end(AsyncLoop *loop, AsyncRequest *request)
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
    AsyncLoop *loop = exchange->loop;
    AsyncRequest *request = exchange->request;
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
    AsyncRequest *request = exchange->request;
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
    PyObject *result = PyObject_CallMethod(step->rest, "send", "(O)", value);
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

/* prepare_asgi(current_task, deque, describe_tls, first_lines): what this
 * section needs of Python, given by _asgi_native.py, since WSGI needs none of
 * it. */
static PyObject *
prepare_asgi(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject **at[] = {&current_task, &new_deque, &describe_tls, &first_lines};
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
        {"AsyncRequest", &AsyncRequestType, &async_request_spec},    {"AsyncLoop", &AsyncLoopType, &async_loop_spec}, {"Scopes", NULL, &scopes_spec},
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

/* use(check_status, check_name, close, FileWrapper, start_response): what is
 * needed of _wsgi.py. */
static PyObject *
use(PyObject *module, PyObject *args)
{
    (void)module;
    PyObject *status, *name, *close, *wrapper, *start;
    if (!PyArg_ParseTuple(args, "OOOOO:use", &status, &name, &close, &wrapper, &start))
        return NULL;
    set(&check_status, status);
    set(&check_name, name);
    set(&close_result, close);
    set(&file_wrapper, wrapper);
    set(&reference_start_response, start);
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"decode_pairs", decode_pairs, METH_VARARGS, NULL},
    {"use", use, METH_VARARGS, NULL},
    {"take_requests", take_requests, METH_VARARGS, NULL},
    {"prepare_asgi", prepare_asgi, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static const struct {
    PyObject **into;
    const char *text;
} texts[] = {
    {&empty_text, ""}, {&text_https, "https"},
    {&name_open, "_open"}, {&name_wait, "_wait"}, {&name_has_work, "_has_work"}, {&name_pass_on, "_pass_on"},
    {&name_take_in, "_take_in"}, {&name_set_failure, "_set_failure"}, {&name_set_end_of_input, "_set_end_of_input"},
    {&name_stop_if_done, "_stop_if_done"}, {&name_end, "end"}, {&name_write, "write"}, {&name_input, "wsgi.input"},
    {&name_errors, "wsgi.errors"}, {&name_url_scheme, "wsgi.url_scheme"}, {&name_proxy, "HTTP_PROXY"},
    {&name_method, "REQUEST_METHOD"}, {&name_scheme, "REQUEST_SCHEME"}, {&name_https, "HTTPS"}, {&name_mount, "_mount"},
    {&name_fail, "fail"}, {&name_conclude, "_conclude"},
};

static const struct {
    PyTypeObject **into;
    const char *name;
    PyType_Spec *spec;
} module_types[] = {
    {&RequestType, "Request", &request_spec}, {&ConnectionType, "Connection", &connection_spec}, {&LoopType, "Loop", &loop_spec},
    {&InputType, "Input", &input_spec}, {&ErrorsType, "Errors", &errors_spec}, {&ResponseType, "Response", &response_spec},
    {&HandlerType, "Handler", &handler_spec},
};

/* Takes an attribute of a module. */
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
    static int executed;
    if (executed) {
        PyErr_SetString(PyExc_ImportError, "gatecrew_worker._speed is there once in a process");
        return -1;
    }
    executed = 1;
    if (fill_slots() < 0 || take(&ProtocolError, "gatecrew_worker._records", "ProtocolError") < 0
        || take(&make_deque, "collections", "deque") < 0 || (empty_bytes = PyBytes_FromStringAndSize(NULL, 0)) == NULL
        || (one = PyLong_FromLong(1)) == NULL || (status_lines = PyDict_New()) == NULL
        || (names_of_headers = PyDict_New()) == NULL)
        return -1;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        *texts[i].into = PyUnicode_InternFromString(texts[i].text);
        if (*texts[i].into == NULL)
            return -1;
    }
    for (size_t i = 0; i < sizeof module_types / sizeof module_types[0]; i++) {
        PyObject *type = PyType_FromSpec(module_types[i].spec);
        if (type == NULL)
            return -1;
        *module_types[i].into = (PyTypeObject *)type;
        if (PyModule_AddObject(module, module_types[i].name, type) < 0)
            return -1;
        Py_INCREF(type); /* that of the variable */
    }
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
