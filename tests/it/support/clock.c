/* A clock that is set when told to, for a program that this is preloaded into (LD_PRELOAD): the wall clock
 * is as many seconds ahead as the file $CLOCK says, looked at 20 times a second. What measures spans of time
 * is left alone, as it is when an administrator or NTP sets a clock. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int (*system_gettime)(clockid_t, struct timespec *);

static long ahead(void) {
    static volatile long seconds, looked_at_ms;
    struct timespec now;
    system_gettime(CLOCK_MONOTONIC, &now);
    long now_ms = now.tv_sec * 1000 + now.tv_nsec / 1000000;
    if (now_ms - looked_at_ms >= 50) {
        looked_at_ms = now_ms;
        char text[32] = {0};
        const char *path = getenv("CLOCK");
        int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0) seconds = atol(text);
            close(file);
        }
    }
    return seconds;
}

int clock_gettime(clockid_t clock, struct timespec *time) {
    if (!system_gettime) system_gettime = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = system_gettime(clock, time);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) time->tv_sec += ahead();
    return failed;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}

int gettimeofday(struct timeval *time, void *zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}
