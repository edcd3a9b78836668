/* Preloaded into a process: while the file that FULL_DISK names exists, nothing more fits into the folder that FULL_DISK_ROOT
   names: half of a write is taken, then ENOSPC is answered, as by a file system whose last block was given away. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static int is_full(int fd) {
    const char *root = getenv("FULL_DISK_ROOT"), *flag = getenv("FULL_DISK");
    char link[64], path[4096];
    if (!root || !flag || access(flag, F_OK) != 0)
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    return length > 0 && (size_t)length >= strlen(root) && strncmp(path, root, strlen(root)) == 0;
}

static ssize_t refuse(void) {
    errno = ENOSPC;
    return -1;
}

ssize_t write(int fd, const void *bytes, size_t count) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (!is_full(fd))
        return real(fd, bytes, count);
    return count > 1 ? real(fd, bytes, count / 2) : refuse();
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return is_full(fd) ? refuse() : ((ssize_t (*)(int, const struct iovec *, int))dlsym(RTLD_NEXT, "writev"))(fd, parts, count);
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) {
    return is_full(fd) ? refuse() : ((ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite"))(fd, bytes, count, at);
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t at) {
    return is_full(fd) ? refuse() : ((ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64"))(fd, bytes, count, at);
}
