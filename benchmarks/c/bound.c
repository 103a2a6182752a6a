// SPDX-License-Identifier: GPL-2.0-only
/*
 * A lower bound: the same operations on the same structures in minimal C. One thread, no atomic
 * operations, no checks, no LRU, no memcg, no TLB, contents neither zeroed nor copied.
 *
 *   bound PAGES SHARERS SHUFFLED
 *
 * Prints ns per page (for walks: per page, and per mapping), one "name value" a line.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef uint64_t u64;

#define PRESENT 0x1ULL
#define RW 0x2ULL
#define USER 0x4ULL
#define ACCESSED 0x20ULL
#define DIRTY 0x40ULL
#define PFN_MASK 0x000ffffffffff000ULL
#define BASE 0x7f0000000000ULL
#define PMD_SIZE (1ULL << 21)

struct page {
	u64 flags, mapping, index, private;
	int mapcount, refcount;
	u64 lru[2], memcg;
};

struct anon_vma;
struct vma;

struct avc {
	struct vma *vma;
	struct avc *left, *right, *up, *next;
	int red;
	u64 last;
};

struct anon_vma {
	struct anon_vma *root;
	struct avc *tree;
	int readers;
};

struct mm {
	u64 *pgd;
	struct vma *vma;
	long rss, swap;
};

struct vma {
	struct mm *mm;
	u64 start, end, pgoff, flags;
	struct anon_vma *anon_vma;
	struct avc *chain;
};

struct referenced {
	int mapcount, count;
	u64 flags;
};

static struct page *map;
static u64 *free_pages;
static long nr_free;
static unsigned char *swap_map;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1e9 + t.tv_nsec;
}

/* ---- page tables ---- */

static u64 *table(void)
{
	u64 *t = aligned_alloc(4096, 4096);

	memset(t, 0, 4096);
	return t;
}

static inline u64 *down(u64 *t, int slot)
{
	return t[slot] & PRESENT ? (u64 *)(t[slot] & PFN_MASK) : NULL;
}

static inline u64 *down_alloc(u64 *t, int slot)
{
	if (!(t[slot] & PRESENT))
		t[slot] = (u64)table() | PRESENT | RW | USER;
	return (u64 *)(t[slot] & PFN_MASK);
}

static u64 *pte_offset(struct mm *mm, u64 a)
{
	u64 *t = down(mm->pgd, a >> 39 & 511);

	if (t)
		t = down(t, a >> 30 & 511);
	if (t)
		t = down(t, a >> 21 & 511);
	return t ? t + (a >> 12 & 511) : NULL;
}

static u64 *pte_alloc(struct mm *mm, u64 a)
{
	u64 *t = down_alloc(mm->pgd, a >> 39 & 511);

	t = down_alloc(t, a >> 30 & 511);
	return down_alloc(t, a >> 21 & 511) + (a >> 12 & 511);
}

static inline u64 pfn_of(u64 pte)
{
	return (pte & PFN_MASK) >> 12;
}

static inline u64 table_end(u64 a, u64 end)
{
	u64 next = (a + PMD_SIZE) & ~(PMD_SIZE - 1);

	return next < end ? next : end;
}

/* ---- the interval tree ---- */

static inline u64 first_of(struct avc *n)
{
	return n->vma->pgoff;
}

static inline u64 last_of(struct avc *n)
{
	return n->vma->pgoff + ((n->vma->end - n->vma->start) >> 12) - 1;
}

static u64 subtree_last(struct avc *n)
{
	u64 last = last_of(n);

	if (n->left && n->left->last > last)
		last = n->left->last;
	if (n->right && n->right->last > last)
		last = n->right->last;
	return last;
}

static void rotate(struct anon_vma *av, struct avc *n, int left)
{
	struct avc *child = left ? n->right : n->left;
	struct avc *moved = left ? child->left : child->right;

	if (left) {
		n->right = moved;
		child->left = n;
	} else {
		n->left = moved;
		child->right = n;
	}
	if (moved)
		moved->up = n;
	child->up = n->up;
	if (!n->up)
		av->tree = child;
	else if (n->up->left == n)
		n->up->left = child;
	else
		n->up->right = child;
	n->up = child;
	child->last = n->last;
	n->last = subtree_last(n);
}

static void insert(struct anon_vma *av, struct avc *n)
{
	struct avc **link = &av->tree, *up = NULL, *grand, *uncle;
	u64 last = last_of(n);
	int left;

	while (*link) {
		up = *link;
		if (up->last < last)
			up->last = last;
		link = first_of(n) < first_of(up) ? &up->left : &up->right;
	}
	n->up = up;
	n->left = n->right = NULL;
	n->red = 1;
	n->last = last;
	*link = n;
	while (n->up && n->up->red) {
		up = n->up;
		grand = up->up;
		left = up == grand->left;
		uncle = left ? grand->right : grand->left;
		if (uncle && uncle->red) {
			up->red = uncle->red = 0;
			grand->red = 1;
			n = grand;
			continue;
		}
		if (n == (left ? up->right : up->left)) {
			rotate(av, up, left);
			up = n;
		}
		up->red = 0;
		grand->red = 1;
		rotate(av, grand, !left);
		break;
	}
	av->tree->red = 0;
}

static struct avc *search(struct avc *n, u64 first, u64 last)
{
	for (;;) {
		if (n->left && n->left->last >= first) {
			n = n->left;
			continue;
		}
		if (first_of(n) <= last) {
			if (last_of(n) >= first)
				return n;
			if (n->right && n->right->last >= first) {
				n = n->right;
				continue;
			}
		}
		return NULL;
	}
}

static struct avc *iter_first(struct anon_vma *av, u64 first, u64 last)
{
	return av->tree && av->tree->last >= first ? search(av->tree, first, last) : NULL;
}

static struct avc *iter_next(struct avc *n, u64 first, u64 last)
{
	struct avc *right = n->right, *prev;

	for (;;) {
		if (right && right->last >= first)
			return search(right, first, last);
		do {
			prev = n;
			n = n->up;
			if (!n)
				return NULL;
			right = n->right;
		} while (prev == right);
		if (first_of(n) > last)
			return NULL;
		if (last_of(n) >= first)
			return n;
	}
}

/* ---- processes ---- */

static void attach(struct vma *vma, struct anon_vma *av)
{
	struct avc *avc = calloc(1, sizeof(*avc));

	avc->vma = vma;
	avc->next = vma->chain;
	vma->chain = avc;
	insert(av, avc);
}

static struct mm *new_mm(u64 start, long pages)
{
	struct mm *mm = calloc(1, sizeof(*mm));
	struct vma *vma = calloc(1, sizeof(*vma));

	mm->pgd = table();
	mm->vma = vma;
	vma->mm = mm;
	vma->start = start;
	vma->end = start + ((u64)pages << 12);
	vma->pgoff = start >> 12;
	return mm;
}

static void own_anon_vma(struct vma *vma, struct anon_vma *root)
{
	struct anon_vma *av = calloc(1, sizeof(*av));

	av->root = root ? root : av;
	vma->anon_vma = av;
	attach(vma, av);
}

static void new_anon_page(struct vma *vma, u64 a, u64 *pte)
{
	u64 pfn = free_pages[--nr_free];
	struct page *page = &map[pfn];

	page->refcount = 1;
	page->flags = 0x28;
	page->mapcount = 0;
	page->mapping = (u64)vma->anon_vma | 1;
	page->index = ((a - vma->start) >> 12) + vma->pgoff;
	*pte = pfn << 12 | PRESENT | RW | USER | ACCESSED | DIRTY;
}

static void put_page(struct page *page)
{
	page->mapcount--;
	if (--page->refcount == 0) {
		page->mapping = 0;
		page->flags = 0;
		free_pages[nr_free++] = page - map;
	}
}

static void touch(struct vma *vma)
{
	for (u64 a = vma->start; a < vma->end; a += 4096) {
		new_anon_page(vma, a, pte_alloc(vma->mm, a));
		vma->mm->rss++;
	}
}

static struct mm *do_fork(struct mm *parent)
{
	struct vma *from = parent->vma, *to;
	struct mm *mm = new_mm(from->start, (from->end - from->start) >> 12);
	struct page *page;
	u64 a, end, *src, *dst;

	to = mm->vma;
	for (struct avc *c = from->chain; c; c = c->next)
		attach(to, from->anon_vma);
	own_anon_vma(to, from->anon_vma->root);
	for (a = from->start; a < from->end; a = end) {
		end = table_end(a, from->end);
		src = pte_offset(parent, a);
		dst = pte_alloc(mm, a);
		for (; src && a < end; a += 4096, src++, dst++) {
			if (!*src)
				continue;
			*src &= ~RW;
			*dst = *src & ~ACCESSED;
			page = &map[pfn_of(*src)];
			page->refcount++;
			page->mapcount++;
			mm->rss++;
		}
	}
	return mm;
}

static void cow(struct vma *vma, long pages)
{
	u64 a = vma->start, *pte;
	struct page *old;

	for (long i = 0; i < pages; i++, a += 4096) {
		pte = pte_offset(vma->mm, a);
		old = &map[pfn_of(*pte)];
		new_anon_page(vma, a, pte);
		put_page(old);
	}
}

static void zap(struct vma *vma)
{
	u64 a, end, *pte;

	for (a = vma->start; a < vma->end; a = end) {
		end = table_end(a, vma->end);
		pte = pte_offset(vma->mm, a);
		for (; pte && a < end; a += 4096, pte++) {
			if (!(*pte & PRESENT))
				continue;
			put_page(&map[pfn_of(*pte)]);
			*pte = 0;
			vma->mm->rss--;
		}
	}
}

static void protect(struct vma *vma)
{
	u64 a, end, *pte;

	for (a = vma->start; a < vma->end; a = end) {
		end = table_end(a, vma->end);
		pte = pte_offset(vma->mm, a);
		for (; pte && a < end; a += 4096, pte++)
			if (*pte & PRESENT)
				*pte &= ~RW;
	}
}

static void make_young(struct vma *vma)
{
	for (u64 a = vma->start; a < vma->end; a += 4096)
		*pte_offset(vma->mm, a) |= ACCESSED;
}

/* ---- walks ---- */

static u64 *mapped_at(u64 pfn, struct vma *vma, u64 a)
{
	u64 *pte = pte_offset(vma->mm, a);

	return pte && *pte & PRESENT && pfn_of(*pte) == pfn ? pte : NULL;
}

static __attribute__((noinline)) int referenced_one(u64 pfn, struct vma *vma, u64 a, void *arg)
{
	struct referenced *r = arg;
	u64 *pte = mapped_at(pfn, vma, a);

	if (pte) {
		if (*pte & ACCESSED) {
			*pte &= ~ACCESSED;
			r->count++;
			r->flags |= vma->flags;
		}
		r->mapcount--;
	}
	return r->mapcount != 0;
}

static __attribute__((noinline)) int unmap_one(u64 pfn, struct vma *vma, u64 a, void *arg)
{
	u64 *pte = mapped_at(pfn, vma, a);
	struct page *page = &map[pfn];

	(void)arg;
	if (pte) {
		swap_map[page->private]++;
		*pte = page->private << 14;
		vma->mm->rss--;
		vma->mm->swap++;
		page->mapcount--;
		page->refcount--;
	}
	return page->mapcount >= 0;
}

static void walk(u64 pfn, int (*one)(u64, struct vma *, u64, void *), void *arg)
{
	struct page *page = &map[pfn];
	struct anon_vma *av = (void *)(page->mapping & ~3ULL);
	u64 at = page->index;
	struct vma *vma;

	av->root->readers++;
	for (struct avc *c = iter_first(av, at, at); c; c = iter_next(c, at, at)) {
		vma = c->vma;
		if (!one(pfn, vma, vma->start + ((at - vma->pgoff) << 12), arg))
			break;
	}
	av->root->readers--;
}

static int referenced(u64 pfn)
{
	struct referenced r = { map[pfn].mapcount + 1, 0, 0 };

	if (r.mapcount)
		walk(pfn, referenced_one, &r);
	return r.count;
}

/* ---- measuring ---- */

static void prepare(long total, int shuffled)
{
	u64 kept;
	long other;

	map = calloc(total + 1, sizeof(*map));
	free_pages = malloc((total + 1) * sizeof(*free_pages));
	swap_map = calloc(total + 1, 1);
	for (long i = total; i > 0; i--) {
		map[i].mapcount = -1;
		map[i].private = i;
		free_pages[nr_free++] = i;
	}
	srand(1);
	for (long i = total - 1; shuffled && i > 0; i--) {
		other = ((long)rand() << 16 ^ rand()) % (i + 1);
		kept = free_pages[i];
		free_pages[i] = free_pages[other];
		free_pages[other] = kept;
	}
}

static void age(struct mm **mms, int sharers, const u64 *pages, long count, const char *name)
{
	double best = 1e18, start, took;
	long sum = 0;

	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < sharers; i++)
			make_young(mms[i]->vma);
		start = now();
		for (long i = 0; i < count; i++)
			sum += referenced(pages[i]);
		took = (now() - start) / count;
		if (took < best)
			best = took;
	}
	if (sum != 3 * count * sharers)
		exit(1);
	printf("%s %.2f\n", name, best);
}

int main(int argc, char **argv)
{
	long pages = argc > 1 ? atol(argv[1]) : 262144;
	int sharers = argc > 2 ? atoi(argv[2]) : 2;
	int shuffled = argc > 3 ? atoi(argv[3]) : 0;
	struct mm **mms, *last;
	u64 *pfns;
	double start;

	if (pages < 1 || sharers < 1) {
		fprintf(stderr, "usage: bound PAGES SHARERS SHUFFLED(0|1)\n");
		return 2;
	}
	mms = calloc(sharers + 1, sizeof(*mms));
	pfns = calloc(pages, sizeof(*pfns));
	prepare(2 * pages + 1024, shuffled);
	mms[0] = new_mm(BASE, pages);
	own_anon_vma(mms[0]->vma, NULL);
	start = now();
	touch(mms[0]->vma);
	printf("touch %.2f\n", (now() - start) / pages);
	for (long i = 0; i < pages; i++)
		pfns[i] = pfn_of(*pte_offset(mms[0], BASE + i * 4096));
	start = now();
	protect(mms[0]->vma);
	printf("mprotect %.2f\n", (now() - start) / pages);
	for (int i = 1; i < sharers; i++)
		mms[i] = do_fork(mms[0]);
	age(mms, sharers, pfns, pages, "age");
	start = now();
	last = do_fork(mms[0]);
	printf("fork %.2f\n", (now() - start) / pages);
	start = now();
	cow(last->vma, (pages + 1) / 2);
	printf("cow %.2f\n", (now() - start) / ((pages + 1) / 2));
	start = now();
	zap(last->vma);
	printf("zap_shared %.2f\n", (now() - start) / pages);
	/* The edges of `last` stay: a walk visits its VMA in vain, as it would before munmap ends. */
	start = now();
	for (long i = 0; i < pages; i++)
		walk(pfns[i], unmap_one, NULL);
	printf("unmap %.2f\n", (now() - start) / pages);
	return 0;
}
