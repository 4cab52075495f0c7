/* LD_PRELOAD shim of `dicomnode bench`, steered by the environment of the process under test:
 *
 *   BENCH_SYNC=stub         fsync, fdatasync and their like return at once: what is left is T0
 *   BENCH_SYNC_MS=3         each takes at least so long: the same disk for every subject
 *   BENCH_SYNC_COUNT=FILE   eight bytes in FILE count the calls: proof that the shim was in the way
 *   BENCH_LOOPBACK=1        a server that would listen on every address listens on the loopback only
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static int stubbed, loopback;
static long least_ns;
static _Atomic long own_count;
static _Atomic long *count = &own_count;

__attribute__((constructor)) static void prepare(void) {
    const char *sync = getenv("BENCH_SYNC"), *ms = getenv("BENCH_SYNC_MS"), *file = getenv("BENCH_SYNC_COUNT");
    stubbed = sync && !strcmp(sync, "stub");
    loopback = getenv("BENCH_LOOPBACK") != NULL;
    least_ns = ms ? (long)(atof(ms) * 1e6) : 0;
    int fd = file ? open(file, O_RDWR) : -1;
    if (fd >= 0) {
        void *shared = mmap(NULL, sizeof(long), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (shared != MAP_FAILED) count = shared;
        close(fd);
    }
}

static long now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000L + now.tv_nsec;
}

static void wait_from(long began) {
    long left = began + least_ns - now_ns();
    if (left > 0) {
        struct timespec wait = {left / 1000000000L, left % 1000000000L};
        while (nanosleep(&wait, &wait)) {}
    }
}

#define SYNCED(name, parameters, arguments)                     \
    int name parameters {                                       \
        int (*real) parameters = dlsym(RTLD_NEXT, #name);       \
        atomic_fetch_add(count, 1);                             \
        if (stubbed) return 0;                                  \
        long began = now_ns();                                  \
        int result = real arguments;                            \
        wait_from(began);                                       \
        return result;                                          \
    }

SYNCED(fsync, (int fd), (fd))
SYNCED(fdatasync, (int fd), (fd))
SYNCED(syncfs, (int fd), (fd))
SYNCED(msync, (void *start, size_t length, int flags), (start, length, flags))

/* Starts writing, promises nothing: costs no sync of its own. */
int sync_file_range(int fd, off64_t offset, off64_t length, unsigned int flags) {
    int (*real)(int, off64_t, off64_t, unsigned int) = dlsym(RTLD_NEXT, "sync_file_range");
    return stubbed ? 0 : real(fd, offset, length, flags);
}

int bind(int fd, const struct sockaddr *address, socklen_t length) {
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
    struct sockaddr_in changed;
    if (loopback && address && address->sa_family == AF_INET && length >= sizeof changed) {
        memcpy(&changed, address, sizeof changed);
        if (changed.sin_addr.s_addr == htonl(INADDR_ANY)) {
            changed.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
            return real(fd, (struct sockaddr *)&changed, sizeof changed);
        }
    }
    struct sockaddr_in6 changed6;
    if (loopback && address && address->sa_family == AF_INET6 && length >= sizeof changed6) {
        memcpy(&changed6, address, sizeof changed6);
        if (!memcmp(&changed6.sin6_addr, &in6addr_any, sizeof in6addr_any)) {
            /* ::ffff:127.0.0.1, so that who connects by IPv4 is served */
            inet_pton(AF_INET6, "::ffff:127.0.0.1", &changed6.sin6_addr);
            return real(fd, (struct sockaddr *)&changed6, sizeof changed6);
        }
    }
    return real(fd, address, length);
}
