/* A disk that fails when told to, for a program that this is preloaded into (LD_PRELOAD).
 *
 * A file NAME in the folder $FAULTS makes the next call of that name below the paths that hold $FAULTS_AT
 * fail with the errno written in the file, and is removed with it. A file NAME.all fails them all, until
 * it is taken away. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int concerns(const char *path) {
    const char *at = getenv("FAULTS_AT");
    return at && path && strstr(path, at);
}

static int concerns_file(int file) {
    char link[64], path[1024];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t count = readlink(link, path, sizeof path - 1);
    if (count < 0) return 0;
    path[count] = 0;
    return concerns(path);
}

/* True, and errno set, where the call is to fail. The system's own open is used: ours would ask again. */
static int fails(const char *name) {
    static int (*system_open)(const char *, int, ...);
    if (!system_open) system_open = dlsym(RTLD_NEXT, "open64");
    const char *folder = getenv("FAULTS");
    char path[1024], text[16] = {0};
    for (int all = 0; folder && all < 2; all++) {
        snprintf(path, sizeof path, "%s/%s%s", folder, name, all ? ".all" : "");
        int file = system_open(path, O_RDONLY | O_CLOEXEC);
        if (file < 0) continue;
        ssize_t count = read(file, text, sizeof text - 1);
        close(file);
        if (count <= 0 || (!all && unlink(path) != 0)) continue;
        errno = atoi(text);
        return 1;
    }
    return 0;
}

#define OVER(result, name, parameters, arguments, concerned)               \
    result name parameters {                                               \
        static result (*system_call) parameters;                           \
        if (!system_call) system_call = dlsym(RTLD_NEXT, #name);           \
        return (concerned) && fails(#name) ? -1 : system_call arguments;   \
    }

OVER(int, fsync, (int file), (file), concerns_file(file))
OVER(int, fdatasync, (int file), (file), concerns_file(file))
OVER(ssize_t, write, (int file, const void *bytes, size_t count), (file, bytes, count), concerns_file(file))
OVER(ssize_t, pwrite64, (int file, const void *bytes, size_t count, off64_t at), (file, bytes, count, at),
     concerns_file(file))
OVER(int, rename, (const char *from, const char *to), (from, to), concerns(to))
OVER(int, unlink, (const char *path), (path), concerns(path))

int open64(const char *path, int flags, ...) {
    static int (*system_call)(const char *, int, ...);
    if (!system_call) system_call = dlsym(RTLD_NEXT, "open64");
    va_list rest;
    va_start(rest, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
    va_end(rest);
    if ((flags & O_CREAT) && concerns(path) && fails("open64")) return -1;
    return system_call(path, flags, mode);
}
