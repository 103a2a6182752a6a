// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the running kernel takes for the same operations: ns per page, one "name value" a line.
 *
 *   kernel PAGES SHARERS [huge]
 *
 * Anonymous memory in pages of 4 KiB, or in huge pages of 2 MiB. SHARERS - 1 children are forked;
 * the times of fork, of copy-on-write and of munmap are those of the last of them, so that all
 * others map the pages too. With huge pages there is one more line: the time of unmapping the first
 * 4 KiB of each, which splits the entry that maps it. Exit status 3: the kernel gave no huge pages.
 */
#define _GNU_SOURCE
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { SMALL = 4096, HUGE = 2 << 20, MOST_CHILDREN = 64 };

/* The size of a page of this run. */
static long unit = SMALL;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void touch(volatile char *memory, long pages)
{
	for (long i = 0; i < pages; i++)
		memory[i * unit] = 1;
}

static double timed_mprotect(char *memory, long pages, int protection)
{
	double start = now();

	if (mprotect(memory, pages * unit, protection))
		fail("mprotect");
	return now() - start;
}

static double timed_munmap(char *memory, long pages)
{
	double start = now();

	if (munmap(memory, pages * unit))
		fail("munmap");
	return now() - start;
}

/* Unmaps a small page of each huge one. */
static double timed_splits(char *memory, long pages)
{
	double start = now();

	for (long i = 0; i < pages; i++)
		if (munmap(memory + i * unit, SMALL))
			fail("munmap");
	return now() - start;
}

/* Maps memory aligned to its pages, with or without huge ones. */
static char *map(long pages)
{
	size_t size = pages * unit, extra = unit > SMALL ? unit : 0;
	char *memory = mmap(NULL, size + extra, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		fail("mmap");
	if (extra)
		memory = (char *)(((uintptr_t)memory + extra - 1) & -(uintptr_t)extra);
	if (madvise(memory, size, extra ? MADV_HUGEPAGE : MADV_NOHUGEPAGE) && extra)
		exit(3);
	return memory;
}

/* Bytes of huge pages that this process maps (AnonHugePages of smaps_rollup). */
static long huge_bytes(void)
{
	FILE *file = fopen("/proc/self/smaps_rollup", "r");
	char line[256];
	long kib = 0;

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "AnonHugePages: %ld kB", &kib) == 1)
			break;
	if (file)
		fclose(file);
	return kib * 1024;
}

/* The last child: writes to half of the pages, then unmaps all, and reports both times. */
static void child(char *memory, long pages, int report)
{
	double times[2];
	double start = now();

	touch(memory, pages / 2);
	times[0] = (now() - start) / (pages / 2);
	times[1] = timed_munmap(memory, pages) / pages;
	if (write(report, times, sizeof(times)) != sizeof(times))
		_exit(1);
	_exit(0);
}

/* Forks; the child waits for one byte (or the end) on `gate`, so that it keeps the pages mapped. */
static pid_t idle_child(const int gate[2])
{
	pid_t pid = fork();
	char byte;

	if (pid < 0)
		fail("fork");
	if (pid == 0) {
		close(gate[1]);
		_exit(read(gate[0], &byte, 1) < 0);
	}
	return pid;
}

int main(int argc, char **argv)
{
	long pages = argc > 1 ? atol(argv[1]) : 262144;
	int sharers = argc > 2 ? atoi(argv[2]) : 2;
	int gate[2], report[2];
	double start, times[2];
	char *memory;
	pid_t last;

	if (pages < 2 || sharers < 1 || sharers > MOST_CHILDREN) {
		fprintf(stderr, "usage: kernel PAGES(>=2) SHARERS(1-%d) [huge]\n", MOST_CHILDREN);
		return 2;
	}
	if (argc > 3)
		unit = HUGE;
	memory = map(pages);
	start = now();
	touch(memory, pages);
	printf("touch %.2f\n", (now() - start) / pages);
	if (unit == HUGE && huge_bytes() < pages * unit)
		return 3;
	printf("mprotect %.2f\n", timed_mprotect(memory, pages, PROT_READ) / pages);
	timed_mprotect(memory, pages, PROT_READ | PROT_WRITE);

	if (pipe(gate) || pipe(report))
		fail("pipe");
	for (int i = 0; i < sharers - 2; i++)
		idle_child(gate);
	if (sharers > 1) {
		fflush(stdout);
		start = now();
		last = fork();
		if (last == 0)
			child(memory, pages, report[1]);
		if (last < 0)
			fail("fork");
		printf("fork %.2f\n", (now() - start) / pages);
		if (read(report[0], times, sizeof(times)) != sizeof(times))
			fail("the child");
		printf("cow %.2f\nzap_shared %.2f\n", times[0], times[1]);
	}
	close(gate[1]);
	while (wait(NULL) > 0)
		;
	printf("zap %.2f\n", timed_munmap(memory, pages) / pages);
	if (unit == HUGE) {
		memory = map(pages);
		touch(memory, pages);
		printf("split %.2f\n", timed_splits(memory, pages) / pages);
	}
	return 0;
}
