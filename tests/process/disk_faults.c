/* A preloaded library that makes the disk of one process fail: see disk_faults.py.
 *
 * PAXOS_DISK_FAULTS names a file that is mapped and shared with the test: one rule for each kind of call, which may
 * be changed at any time. Only files whose path begins with PAXOS_DISK_UNDER and contains the rule's scope are met.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { SYNC, WRITE, CREATE, SPACE, RENAME, KINDS };

struct rule {
    volatile int32_t error;    /* errno of a call that fails */
    volatile int32_t times;    /* so many more calls fail; -1: all of them */
    volatile int32_t skip;     /* calls before the first that fails */
    volatile int32_t delay_ms; /* before a call, until it is set to 0 */
    volatile int32_t bytes;    /* a write takes at most so many; 0: all */
    int32_t unused;
    volatile uint64_t calls;
    volatile uint64_t failed;
    volatile uint64_t first_failed; /* number of the call */
    volatile char scope[64];
};

static struct rule *rules;
static const char *under;

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("PAXOS_DISK_FAULTS");
    under = getenv("PAXOS_DISK_UNDER");
    if (!path || !under)
        return;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return;
    void *at = mmap(NULL, KINDS * sizeof(struct rule), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at != MAP_FAILED)
        rules = at;
}

static void wait_ms(struct rule *rule)
{
    struct timespec slice = {0, 2000000};
    for (int waited = 0; waited < rule->delay_ms; waited += 2)
        nanosleep(&slice, NULL);
}

/* Count the call; nonzero if it is to fail, with errno set. */
static int meet(int kind, const char *path)
{
    struct rule *rule = &rules[kind];
    if (strncmp(path, under, strlen(under)) || !strstr(path, (const char *)rule->scope))
        return 0;
    uint64_t call = __atomic_add_fetch(&rule->calls, 1, __ATOMIC_SEQ_CST);
    if (rule->delay_ms)
        wait_ms(rule);
    if (!rule->error || !rule->times)
        return 0;
    if (rule->skip > 0) {
        __atomic_sub_fetch(&rule->skip, 1, __ATOMIC_SEQ_CST);
        return 0;
    }
    if (rule->times > 0)
        __atomic_sub_fetch(&rule->times, 1, __ATOMIC_SEQ_CST);
    if (__atomic_fetch_add(&rule->failed, 1, __ATOMIC_SEQ_CST) == 0)
        rule->first_failed = call;
    errno = rule->error;
    return 1;
}

static int meet_fd(int kind, int fd)
{
    char name[64], path[4096];
    if (!rules)
        return 0;
    int kept = errno;
    snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
    ssize_t size = readlink(name, path, sizeof(path) - 1);
    errno = kept;
    if (size <= 0)
        return 0;
    path[size] = 0;
    return meet(kind, path);
}

static int meet_at(int kind, int directory, const char *name)
{
    char link[64], path[8192];
    if (!rules)
        return 0;
    if (name[0] == '/')
        return meet(kind, name);
    int kept = errno;
    ssize_t size;
    if (directory == AT_FDCWD)
        size = getcwd(path, 4096) ? (ssize_t)strlen(path) : -1;
    else {
        snprintf(link, sizeof(link), "/proc/self/fd/%d", directory);
        size = readlink(link, path, 4096);
    }
    errno = kept;
    if (size <= 0)
        return 0;
    snprintf(path + size, sizeof(path) - (size_t)size, "/%s", name);
    return meet(kind, path);
}

/* How much of a write is done. */
static size_t limited(int fd, size_t size)
{
    (void)fd;
    size_t most = rules && rules[WRITE].bytes > 0 ? (size_t)rules[WRITE].bytes : size;
    return most < size ? most : size;
}

#define REAL(type, name, ...) static type (*real)(__VA_ARGS__); if (!real) *(void **)&real = dlsym(RTLD_NEXT, name)

int fdatasync(int fd) { REAL(int, "fdatasync", int); return meet_fd(SYNC, fd) ? -1 : real(fd); }
int fsync(int fd) { REAL(int, "fsync", int); return meet_fd(SYNC, fd) ? -1 : real(fd); }

ssize_t write(int fd, const void *data, size_t size)
{
    REAL(ssize_t, "write", int, const void *, size_t);
    return meet_fd(WRITE, fd) ? -1 : real(fd, data, size);
}

static ssize_t pwrite_any(int fd, const void *data, size_t size, off_t offset)
{
    REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);
    return meet_fd(WRITE, fd) ? -1 : real(fd, data, limited(fd, size), offset);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return pwrite_any(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return pwrite_any(fd, data, size, at); }

static ssize_t pwritev_any(int fd, const struct iovec *parts, int count, off_t offset)
{
    REAL(ssize_t, "pwritev64", int, const struct iovec *, int, off_t);
    if (meet_fd(WRITE, fd))
        return -1;
    if (rules && rules[WRITE].bytes > 0 && count > 0) { /* a part of its first part */
        struct iovec first = {parts[0].iov_base, limited(fd, parts[0].iov_len)};
        return real(fd, &first, 1, offset);
    }
    return real(fd, parts, count, offset);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev_any(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t at) { return pwritev_any(fd, parts, count, at); }

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & (O_CREAT | O_TMPFILE) ? (mode_t)va_arg(arguments, int) : 0;
}

static int open_any(int directory, const char *name, int flags, mode_t mode)
{
    REAL(int, "openat64", int, const char *, int, ...);
    if (flags & O_CREAT && meet_at(CREATE, directory, name))
        return -1;
    return real(directory, name, flags, mode);
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) \
    { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode_t mode = mode_of(flags, arguments); \
        va_end(arguments); \
        return open_any(AT_FDCWD, path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name) \
    int name(int directory, const char *path, int flags, ...) \
    { \
        va_list arguments; \
        va_start(arguments, flags); \
        mode_t mode = mode_of(flags, arguments); \
        va_end(arguments); \
        return open_any(directory, path, flags, mode); \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

static int fallocate_any(int fd, int mode, off_t offset, off_t size)
{
    REAL(int, "fallocate64", int, int, off_t, off_t);
    return meet_fd(SPACE, fd) ? -1 : real(fd, mode, offset, size);
}
int fallocate(int fd, int mode, off_t offset, off_t size) { return fallocate_any(fd, mode, offset, size); }
int fallocate64(int fd, int mode, off64_t offset, off64_t size) { return fallocate_any(fd, mode, offset, size); }

int renameat(int from, const char *before, int to, const char *after)
{
    REAL(int, "renameat", int, const char *, int, const char *);
    return meet_at(RENAME, to, after) ? -1 : real(from, before, to, after);
}

int rename(const char *before, const char *after)
{
    REAL(int, "rename", const char *, const char *);
    return meet_at(RENAME, AT_FDCWD, after) ? -1 : real(before, after);
}
