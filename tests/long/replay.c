// Repeats recorded calls of kernels on another processor, and compares what they wrote: replay KIND FILE
//
// The file is made by test_other_processors.py, with calls.h, which calls a kernel by the number of its signature.
// Memory keeps its address of the recording as its name.
#include "core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *vc_kind_name(int n);
vc_kernel vc_kernel_of(int n, const char *name);

enum { GIVEN, MEMORY, ADDRESSES };  // arrays with their contents; packed layers and scratch; pointers to those
typedef union { int64_t number; void *pointer; } argument;
#include "calls.h"

static FILE *file;
static int64_t number(void) {
    int64_t x;
    if (fread(&x, sizeof x, 1, file) != 1) {
        puts("equal");  // the end
        exit(0);
    }
    return x;
}
static void *bytes(int64_t n, int64_t room) {
    void *p = calloc(1, (size_t)room + 64);
    if (!p || fread(p, 1, (size_t)n, file) != (size_t)n) exit(2);
    return p;
}

static struct { int64_t name; void *at; } memory[100000];
static int memories;
static void *memory_at(int64_t name) {
    for (int n = 0; n < memories; n++)
        if (memory[n].name == name) return memory[n].at;
    return NULL;
}

// Compares the arrays of the call just made with those of the recording; frees them.
static int finish(const char *name, int call, int count, const char *letters, const argument *arguments,
                  const int64_t *sizes) {
    int wrong = 0;
    for (int n = 0; n < count; n++) {
        if (letters[n] != 'p' || sizes[n] < 0) continue;
        void *expected = bytes(sizes[n], sizes[n]);
        if (memcmp(expected, arguments[n].pointer, (size_t)sizes[n])) {
            printf("call %d: argument %d of %s differs\n", call, n, name);
            wrong = 1;
        }
        free(expected), free(arguments[n].pointer);
    }
    return wrong;
}

int main(int argc, char **argv) {
    int kind = 0;
    if (argc < 3 || !(file = fopen(argv[2], "rb"))) return 2;
    while (vc_kind_name(kind) && strcmp(vc_kind_name(kind), argv[1])) kind++;
    if (!vc_kind_name(kind)) return 3;
    for (int call = 0;; call++) {
        const int64_t signature = number(), length = number();
        char *name = bytes(length, length + 1);
        const char *letters = SIGNATURES[signature];
        const int count = (int)strlen(letters);
        argument arguments[32];
        int64_t sizes[32];
        for (int n = 0; n < count; n++) {
            const int64_t form = letters[n] == 'p' ? number() : -1, value = number();
            sizes[n] = -1;
            if (form < 0) {
                arguments[n].number = value;
            } else if (form == GIVEN) {
                sizes[n] = value;
                arguments[n].pointer = value < 0 ? NULL : bytes(value, value);
            } else if (form == ADDRESSES) {
                void **list = calloc((size_t)value + 1, sizeof *list);
                for (int64_t i = 0; i < value; i++) list[i] = memory_at(number());
                arguments[n].pointer = list;
            } else {
                const int64_t size = number();  // the recording kind's: others may need more
                if (!memory_at(value)) memory[memories].name = value, memory[memories++].at = calloc(2, (size_t)size);
                arguments[n].pointer = memory_at(value);
            }
        }
        vc_kernel kernel = vc_kernel_of(kind, name);
        if (!kernel) return 4;
        call_kernel((int)signature, kernel, arguments);
        if (finish(name, call, count, letters, arguments, sizes)) return 1;
        free(name);
        printf("%d\n", call);
    }
}
