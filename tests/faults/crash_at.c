/* Preloaded into a node, it ends it with SIGKILL before the Nth call that changes the disk, and cuts the disk's power first.
 * The file $CRASH_AT says "N FOLDER"; calls are counted from when it is there. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_int calls;

static void step(void) {
    char text[1024] = {0}, folder[1000] = {0};
    int wanted = 0;
    unsigned no_log_flush = 2;
    const char *control = getenv("CRASH_AT");
    int file = control ? open(control, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    ssize_t length = read(file, text, sizeof text - 1);
    close(file);
    if (length <= 0 || sscanf(text, "%d %999s", &wanted, folder) != 2) return;
    if (atomic_fetch_add(&calls, 1) + 1 < wanted) return;
    int disk = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (disk >= 0) ioctl(disk, 0x8004587D /* FS_IOC_SHUTDOWN */, &no_log_flush);
    kill(getpid(), SIGKILL);
    pause();
}

#define REAL(name, ...) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))(__VA_ARGS__)
int fsync(int fd) { step(); return REAL(fsync, fd); }
int fdatasync(int fd) { step(); return REAL(fdatasync, fd); }
int rename(const char *from, const char *to) { step(); return REAL(rename, from, to); }
int unlink(const char *path) { step(); return REAL(unlink, path); }
int rmdir(const char *path) { step(); return REAL(rmdir, path); }
int fchmod(int fd, mode_t mode) { step(); return REAL(fchmod, fd, mode); }
int ftruncate64(int fd, off64_t length) { step(); return REAL(ftruncate64, fd, length); }
ssize_t writev(int fd, const struct iovec *pieces, int count) { step(); return REAL(writev, fd, pieces, count); }
ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) { step(); return REAL(pwrite64, fd, bytes, count, at); }
