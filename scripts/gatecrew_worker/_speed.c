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

/* -- ASGI ------------------------------------------------------------------ */

/* -- Module ---------------------------------------------------------------- */

static PyMethodDef functions[] = {
    {"decode_pairs", decode_pairs, METH_VARARGS, NULL},
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
