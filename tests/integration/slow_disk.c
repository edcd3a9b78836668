/* Preloaded into a broker: while the file that SLOW_DISK names exists, a sync takes as many milliseconds as it says. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void wait_for_the_disk(void) {
    const char *path = getenv("SLOW_DISK");
    FILE *file = path ? fopen(path, "r") : NULL;
    int milliseconds = 0;
    if (!file)
        return;
    if (fscanf(file, "%d", &milliseconds) == 1)
        usleep((useconds_t)milliseconds * 1000);
    fclose(file);
}

int fsync(int fd) {
    wait_for_the_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    wait_for_the_disk();
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
