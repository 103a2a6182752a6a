// SPDX-License-Identifier: GPL-2.0-only
/*
 * A process that does what a test tells it, one system call at a time.
 *
 * Its driver is world.py. Every puppet, forked ones too, connects to the driver's abstract
 * SOCK_SEQPACKET socket (argv[1]), says its pid, and then answers requests one by one. It ends
 * when the driver goes away, and in any case LIFETIME_SECONDS after its start.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#define PR_SET_VMA_ANON_NAME 0
#endif

enum { LIFETIME_SECONDS = 60, STACK_BYTES = 64 << 10 };

struct request {
	char verb[16];
	int64_t arg[6];
	char text[1024];
};

struct reply {
	int64_t value;
	int64_t error;
};

static const char *driver;
static int channel;
static volatile char sink;

static void answer(int64_t value, int64_t error)
{
	struct reply reply = { value, error };

	if (send(channel, &reply, sizeof(reply), MSG_NOSIGNAL) < 0)
		_exit(1);
}

/* Be a puppet of our own: after a start, a fork. */
static void introduce(void)
{
	struct sockaddr_un name = { .sun_family = AF_UNIX };
	size_t length = strnlen(driver, sizeof(name.sun_path) - 1);

	alarm(LIFETIME_SECONDS);
	prctl(PR_SET_PDEATHSIG, SIGKILL); /* also ends one that is stopped */
	memcpy(name.sun_path + 1, driver, length);
	channel = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (channel < 0 || connect(channel, (struct sockaddr *)&name,
				   offsetof(struct sockaddr_un, sun_path) + 1 + length))
		_exit(1);
	answer(getpid(), 0);
}

static int64_t fork_puppet(int fresh)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	close(channel);
	if (fresh) {
		execl("/proc/self/exe", "puppet", driver, NULL);
		_exit(1);
	}
	introduce();
	return 0;
}

/* For those that share our memory: they only wait for their end. */
static int wait_for_the_end(void *unused)
{
	(void)unused;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	alarm(LIFETIME_SECONDS);
	for (;;)
		pause();
	return 0;
}

static void *idle_thread(void *unused)
{
	for (;;)
		pause();
	return unused;
}

static int64_t start_thread(void)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, idle_thread, NULL);
	return errno ? -1 : 0;
}

static void *serve(void *unused);

static pid_t successor;

static void *succeed(void *unused)
{
	__atomic_store_n(&successor, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	return serve(unused);
}

/* Go on in another thread, whose id this is; the first thread exits and the process lives. */
static int64_t leave_leader(void)
{
	pthread_t thread;

	errno = pthread_create(&thread, NULL, succeed, NULL);
	if (errno)
		return -1;
	while (!__atomic_load_n(&successor, __ATOMIC_SEQ_CST))
		sched_yield();
	return successor;
}

static int64_t clone_vm(void)
{
	char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (stack == MAP_FAILED)
		return -1;
	return clone(wait_for_the_end, stack + STACK_BYTES, CLONE_VM | SIGCHLD, NULL);
}

/* The child answers, since its parent stands still until the child is gone. */
static void vfork_puppet(void)
{
	if (vfork() == 0) {
		answer(getpid(), 0);
		wait_for_the_end(NULL);
	}
}

static int64_t write_pages(char *start, int64_t count, int64_t step, int64_t value)
{
	for (int64_t i = 0; i < count; i++)
		memset(start + i * step, (int)value, step);
	return 0;
}

static int64_t read_pages(const char *start, int64_t count, int64_t step)
{
	for (int64_t i = 0; i < count; i++)
		sink = start[i * step];
	return 0;
}

static int64_t milliseconds(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* Never hold still: map, write, fork, break sharing, unmap, exit, over and over. */
static int64_t churn(int64_t duration, int fd, int64_t page)
{
	int64_t end = milliseconds() + duration, rounds = 0;

	for (; milliseconds() < end; rounds++) {
		int64_t pages = 16 + rounds % 48;
		size_t size = pages * page;
		char *anon = mmap(NULL, size, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		char *file = mmap(NULL, 16 * page, PROT_READ | PROT_WRITE,
				  rounds % 2 ? MAP_SHARED : MAP_PRIVATE, fd, 0);
		pid_t pid;

		if (anon == MAP_FAILED || file == MAP_FAILED)
			return -1;
		write_pages(anon, pages, page, rounds);
		read_pages(file, 16, page);
		pid = fork();
		if (pid == 0) {
			write_pages(anon, pages / 2, page, rounds + 1);
			munmap(anon + size / 2 / page * page, page);
			write_pages(file, 4, page, rounds);
			_exit(0);
		}
		write_pages(anon, pages / 4, page, rounds + 2);
		munmap(file, 16 * page);
		munmap(anon, size);
		if (pid > 0 && rounds % 4)
			waitpid(pid, NULL, 0);
	}
	return rounds;
}

static int64_t private_bind_mount(const char *what, const char *where)
{
	if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return -1;
	return mount(what, where, NULL, MS_BIND, NULL);
}

static int64_t perform(struct request *r)
{
	char *at = (char *)r->arg[0];
	int64_t *a = r->arg;

#define VERB(name) (strcmp(r->verb, name) == 0)
	if (VERB("map"))
		return (int64_t)mmap(at, a[1], a[2], a[3], a[4], a[5]);
	if (VERB("unmap"))
		return munmap(at, a[1]);
	if (VERB("move"))
		return (int64_t)mremap(at, a[1], a[2], a[3], (void *)a[4]);
	if (VERB("protect"))
		return mprotect(at, a[1], a[2]);
	if (VERB("advise"))
		return madvise(at, a[1], a[2]);
	if (VERB("lock"))
		return mlock(at, a[1]);
	if (VERB("write"))
		return write_pages(at, a[1], a[2], a[3]);
	if (VERB("read"))
		return read_pages(at, a[1], a[2]);
	if (VERB("open"))
		return open(r->text, a[0] | O_CLOEXEC);
	if (VERB("memfd"))
		return memfd_create(r->text, a[0]);
	if (VERB("truncate"))
		return ftruncate(a[0], a[1]);
	if (VERB("name"))
		return prctl(PR_SET_NAME, r->text);
	if (VERB("name_vma"))
		return prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at, a[1], r->text);
	if (VERB("bind"))
		return private_bind_mount(r->text, r->text + strlen(r->text) + 1);
	if (VERB("fork"))
		return fork_puppet(0);
	if (VERB("spawn"))
		return fork_puppet(1);
	if (VERB("clone_vm"))
		return clone_vm();
	if (VERB("thread"))
		return start_thread();
	if (VERB("outlive_parent"))
		return prctl(PR_SET_PDEATHSIG, 0);
	if (VERB("keep_zombies"))
		return signal(SIGCHLD, SIG_DFL) == SIG_ERR ? -1 : 0;
	if (VERB("leave_leader"))
		return leave_leader();
	if (VERB("churn"))
		return churn(a[0], a[1], a[2]);
	errno = ENOSYS;
	return -1;
}

static void *serve(void *unused)
{
	struct request request;

	(void)unused;
	while (recv(channel, &request, sizeof(request), 0) == sizeof(request)) {
		pid_t self = getpid();
		int64_t value;

		if (strcmp(request.verb, "exit") == 0)
			_exit(0);
		if (strcmp(request.verb, "vfork") == 0) {
			vfork_puppet();
			continue;
		}
		errno = 0;
		value = perform(&request);
		if (getpid() == self) /* a forked child has introduced itself */
			answer(value, value == -1 ? errno : 0);
		if (strcmp(request.verb, "leave_leader") == 0 && value > 0)
			pthread_exit(NULL);
	}
	_exit(0);
}

int main(int argc, char **argv)
{
	if (argc != 2)
		return 2;
	driver = argv[1];
	signal(SIGCHLD, SIG_IGN); /* our children leave no zombies */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	introduce();
	serve(NULL);
}
