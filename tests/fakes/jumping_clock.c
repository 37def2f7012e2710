/* A wall clock that jumps: preloaded, it adds to CLOCK_REALTIME the seconds that stand in a file, as a 64-bit integer.

   What waits until a time of the wall clock is told that time by the true clock, as a kernel whose clock was set would
   have it; the monotonic clock is left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile int64_t *jump;

__attribute__((constructor)) static void open_jump(void) {
  int file = open(getenv("JUMPING_CLOCK"), O_RDONLY);
  void *page = file < 0 ? MAP_FAILED : mmap(NULL, sizeof *jump, PROT_READ, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) abort();
  jump = page;
}

static int64_t seconds(void) { return jump ? *jump : 0; }

static int is_wall(clockid_t clock) { return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE; }

/* Times of the wall clock are larger than a thousand million seconds, those since boot are not. */
static const struct timespec *true_time(const struct timespec *at, struct timespec *room) {
  if (!at || at->tv_sec < 1000000000) return at;
  room->tv_sec = at->tv_sec - seconds();
  room->tv_nsec = at->tv_nsec;
  return room;
}

static void *next(const char *name, const char *version) {
  void *found = version ? dlvsym(RTLD_NEXT, name, version) : NULL;
  return found ? found : dlsym(RTLD_NEXT, name);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
  int failed = (int)syscall(SYS_clock_gettime, clock, now);
  if (!failed && is_wall(clock)) now->tv_sec += seconds();
  return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
  struct timespec precise;
  (void)zone;
  clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return 0;
}

time_t time(time_t *out) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  if (out) *out = now.tv_sec;
  return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *cond, pthread_mutex_t *mutex, const struct timespec *at) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
  struct timespec room;
  if (!real) real = next("pthread_cond_timedwait", "GLIBC_2.3.2");
  return real(cond, mutex, true_time(at, &room));
}

int pthread_cond_clockwait(pthread_cond_t *cond, pthread_mutex_t *mutex, clockid_t clock, const struct timespec *at) {
  static int (*real)(pthread_cond_t *, pthread_mutex_t *, clockid_t, const struct timespec *);
  struct timespec room;
  if (!real) real = next("pthread_cond_clockwait", NULL);
  return real(cond, mutex, clock, true_time(at, &room));
}

int pthread_mutex_timedlock(pthread_mutex_t *mutex, const struct timespec *at) {
  static int (*real)(pthread_mutex_t *, const struct timespec *);
  struct timespec room;
  if (!real) real = next("pthread_mutex_timedlock", NULL);
  return real(mutex, true_time(at, &room));
}

int sem_timedwait(sem_t *restrict sem, const struct timespec *restrict at) {
  static int (*real)(sem_t *, const struct timespec *);
  struct timespec room;
  if (!real) real = next("sem_timedwait", NULL);
  return real(sem, true_time(at, &room));
}

int sem_clockwait(sem_t *sem, clockid_t clock, const struct timespec *at) {
  static int (*real)(sem_t *, clockid_t, const struct timespec *);
  struct timespec room;
  if (!real) real = next("sem_clockwait", NULL);
  return real(sem, clock, true_time(at, &room));
}

/* Abseil's mutexes, which gRPC waits on, call the kernel themselves. */
long syscall(long number, ...) {
  static long (*real)(long, ...);
  struct timespec room;
  va_list rest;
  va_start(rest, number);
  long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
  long d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
  va_end(rest);
  if (!real) real = next("syscall", NULL);
  if (number == SYS_futex && (b & FUTEX_CLOCK_REALTIME)) d = (long)true_time((const struct timespec *)d, &room);
  return real(number, a, b, c, d, e, f);
}
