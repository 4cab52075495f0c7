/* Preloaded into a node: syncs of files whose path holds the text in the file $FAILING_SYNC_OF fail with EIO. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int fails(int descriptor) {
    char wanted[256] = {0}, link[64], path[PATH_MAX] = {0};
    const char *control = getenv("FAILING_SYNC_OF");
    int file = control ? open(control, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t length = read(file, wanted, sizeof wanted - 1);
    close(file);
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    return length > 0 && readlink(link, path, sizeof path - 1) > 0 && strstr(path, wanted) != NULL;
}

#define SYNC(name)                                                        \
    int name(int descriptor) {                                            \
        static int (*real)(int);                                          \
        if (!real) real = (int (*)(int))dlsym(RTLD_NEXT, #name);          \
        if (fails(descriptor)) { errno = EIO; return -1; }                \
        return real(descriptor);                                          \
    }
SYNC(fsync)
SYNC(fdatasync)
