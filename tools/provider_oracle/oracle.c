/* SPDX-FileCopyrightText: 2026 The MoRI authors */
/* SPDX-License-Identifier: MIT */
/*
 * Provider oracle: runs the real rdma-core provider on a fake kernel and
 * prints what it writes. See README.md for the OP-SPEC grammar.
 */
#define _GNU_SOURCE
#include "fake_kernel.h"

#include <endian.h>
#include <errno.h>
#include <getopt.h>
#include <infiniband/verbs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define BUF_ADDR 0x100000000000ull /* fixed, so that output is reproducible */
#define BUF_SIZE (1u << 20)
#define MAX_CHAIN 64
#define MAX_SGE 4
#define MAX_WC 4096

/* Leading part of struct verbs_device_ops, stable from rdma-core 44 to 65. */
struct provider_ops {
	const char *name;
	uint32_t min_abi, max_abi;
	const void *match_table;
	const void **static_providers;
	bool (*match_device)(void *sysfs_dev);
	void *fn[4];
};
extern const struct provider_ops verbs_provider_mlx5, verbs_provider_bnxt_re;
#ifdef HAVE_IONIC
extern const struct provider_ops verbs_provider_ionic;
#endif
void REGISTER_DRIVER(const void *ops);

struct op_name {
	const char *name, *label;
	int opcode;
	uint8_t mlx5_opcode, is_recv;
};
static const struct op_name op_names[] = {
	{ "write", "WRITE", IBV_WR_RDMA_WRITE, 0x08, 0 },
	{ "write_imm", "WRITE_IMM", IBV_WR_RDMA_WRITE_WITH_IMM, 0x09, 0 },
	{ "send", "SEND", IBV_WR_SEND, 0x0a, 0 },
	{ "send_imm", "SEND_IMM", IBV_WR_SEND_WITH_IMM, 0x0b, 0 },
	{ "read", "READ", IBV_WR_RDMA_READ, 0x10, 0 },
	{ "cmp_swap", "CMP_SWAP", IBV_WR_ATOMIC_CMP_AND_SWP, 0x11, 0 },
	{ "fetch_add", "FETCH_ADD", IBV_WR_ATOMIC_FETCH_AND_ADD, 0x12, 0 },
	{ "recv", "RECV", -1, 0, 1 },
};
#define N_OPS (sizeof(op_names) / sizeof(op_names[0]))

struct spec { /* one parsed OP-SPEC */
	const struct op_name *op;
	uint64_t laddr, raddr, compare, swap, add, wr_id;
	uint32_t length, lkey, rkey, imm, nsge, repeat;
	bool inl, sig, fence, solicited, more, auto_id;
};

static const char *provider_name;
static struct ibv_cq *cq;
static struct ibv_qp *qp;
static uint32_t max_inline = 64;

/* Producer and consumer state, kept independently of the provider. */
static uint32_t sq_pi;                     /* units of fk.sq_stride, free running */
static uint32_t sq_posted, sq_signaled_upto; /* WQEs */
static uint32_t last_index;                /* sq_pi at the last posted WQE */
static uint8_t last_mlx5_opcode;
static uint32_t rq_pi, cq_ci, seq;
static uint32_t outstanding, depth = 64;

static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("oracle: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(2);
}

/* ---- fake sysfs ------------------------------------------------------- */

static char sysfs_dir[256];

static void put_file(const char *rel, const char *text)
{
	char path[512];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", sysfs_dir, rel);
	f = fopen(path, "w");
	if (!f)
		die("%s: %s", path, strerror(errno));
	fputs(text, f);
	fclose(f);
}

static const char *const sysfs_dirs[] = {
	"class", "class/infiniband_verbs", "class/infiniband_verbs/uverbs0",
	"class/infiniband", "class/infiniband/fake0",
};
static const char *const sysfs_files[][2] = {
	{ "class/infiniband_verbs/abi_version", "6\n" },
	{ "class/infiniband_verbs/uverbs0/ibdev", "fake0\n" },
	{ "class/infiniband_verbs/uverbs0/abi_version", "1\n" },
	{ "class/infiniband_verbs/uverbs0/dev", "1:3\n" },
	{ "class/infiniband/fake0/node_type", "1: CA\n" },
	{ "class/infiniband/fake0/node_guid", "0011:2233:4455:6677\n" },
};
#define N_ELEM(a) (sizeof(a) / sizeof((a)[0]))

static void sysfs_remove(void)
{
	char path[512];

	for (size_t i = 0; i < N_ELEM(sysfs_files); i++) {
		snprintf(path, sizeof(path), "%s/%s", sysfs_dir, sysfs_files[i][0]);
		unlink(path);
	}
	for (size_t i = N_ELEM(sysfs_dirs); i-- > 0;) {
		snprintf(path, sizeof(path), "%s/%s", sysfs_dir, sysfs_dirs[i]);
		rmdir(path);
	}
	rmdir(sysfs_dir);
}

static void sysfs_create(void)
{
	const char *tmp = getenv("TMPDIR");
	char path[512];

	snprintf(sysfs_dir, sizeof(sysfs_dir), "%s/oracle-sysfs-XXXXXX",
		 tmp && strlen(tmp) < 200 ? tmp : P_tmpdir);
	if (!mkdtemp(sysfs_dir))
		die("mkdtemp %s: %s", sysfs_dir, strerror(errno));
	atexit(sysfs_remove);
	for (size_t i = 0; i < N_ELEM(sysfs_dirs); i++) {
		snprintf(path, sizeof(path), "%s/%s", sysfs_dir, sysfs_dirs[i]);
		mkdir(path, 0700);
	}
	for (size_t i = 0; i < N_ELEM(sysfs_files); i++)
		put_file(sysfs_files[i][0], sysfs_files[i][1]);
	setenv("SYSFS_PATH", sysfs_dir, 1);
}

/* ---- output helpers --------------------------------------------------- */

static void hex(const uint8_t *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		printf("%02x", p[i]);
}

/* n units of a ring from unit index idx on, with wrap-around at the end */
static void hex_ring(const uint8_t *ring, uint32_t idx, uint32_t n, uint32_t stride,
		     uint32_t count)
{
	for (uint32_t i = 0; i < n; i++)
		hex(ring + (size_t)((idx + i) % count) * stride, stride);
}

static void clear_doorbells(void)
{
	for (int p = 0; p < fk_npages; p++)
		memset(fk_pages[p].mem, FK_PAGE_FILL, fk_pages[p].len);
}

/*
 * Runs of changed 8-byte words in the doorbell pages. BlueFlame copies show
 * as one run of 64 bytes or more.
 */
static void print_doorbells(void)
{
	const char *sep = "";
	uint64_t fill, w;

	memset(&fill, FK_PAGE_FILL, sizeof(fill));
	printf(",\"doorbells\":[");
	for (int p = 0; p < fk_npages; p++) {
		uint8_t *m = fk_pages[p].mem;
		size_t len = fk_pages[p].len;

		for (size_t o = 0, e; o < len; o = e + 8) {
			for (e = o; e < len; e += 8) {
				memcpy(&w, m + e, 8);
				if (w == fill)
					break;
			}
			if (e == o)
				continue;
			printf("%s{\"page\":%d,\"offset\":%zu,\"bytes\":\"", sep, p, o);
			hex(m + o, e - o);
			printf("\"}");
			sep = ",";
		}
	}
	printf("]");
	clear_doorbells();
}

static void print_head(const char *kind)
{
	printf("{\"provider\":\"%s\",\"rdma_core\":\"%s\",\"seq\":%u,\"kind\":\"%s\"", provider_name,
	       RDMA_CORE_VERSION, seq++, kind);
}

/* ---- ring geometry ---------------------------------------------------- */

static uint32_t unit_mask(uint32_t i)
{
	return i % fk.sq_count;
}

/* Number of ring units of the WQE at unit index idx (read from its header). */
static uint32_t wqe_units(uint32_t idx)
{
	const uint8_t *w = fk.sq + (size_t)unit_mask(idx) * fk.sq_stride;

	switch (fk_cfg.provider) {
	case P_MLX5:
		return ((w[7] & 0x3f) + 3) / 4; /* ds: 16-byte units */
	case P_BNXT:
		return fk_cfg.bnxt_static ? 8 : w[2]; /* size in slots */
	default:
		return 1;
	}
}

/* Leading bytes of the WQE that carry meaning; the rest may be stale. */
static uint32_t wqe_used_bytes(uint32_t idx, uint32_t units)
{
	const uint8_t *w = fk.sq + (size_t)unit_mask(idx) * fk.sq_stride;

	switch (fk_cfg.provider) {
	case P_MLX5:
		return (w[7] & 0x3f) * 16;
	case P_BNXT:
		return w[2] * 16;
	default:
		return units * fk.sq_stride;
	}
}

/* ---- completions ------------------------------------------------------ */

struct cqe_fields {
	uint32_t status, index, vendor, qpn, length, imm;
	int opcode; /* -1: from status */
};

static void store_cqe(const uint8_t *bytes, size_t len)
{
	uint8_t *slot = fk.cq + (size_t)(cq_ci % fk.cq_count) * len;

	memcpy(slot, bytes, len);
	if (fk_cfg.provider == P_BNXT) {
		uint64_t h = htole64(fk.bnxt_qp_handle);

		memcpy(slot, &h, 8);
	}
	cq_ci++;
}

static size_t cqe_size(void)
{
	return fk_cfg.provider == P_MLX5 ? 64 : 32;
}

/* A requester CQE as the device would write it at the consumer position. */
static void make_cqe(uint8_t *b, const struct cqe_fields *f)
{
	uint32_t lap = cq_ci / fk.cq_count, v32;
	uint64_t v64;
	uint16_t v16;

	memset(b, 0, 64);
	switch (fk_cfg.provider) {
	case P_MLX5: {
		int opcode = f->opcode >= 0 ? f->opcode : f->status ? 13 : 0;

		v32 = htobe32(f->imm);
		memcpy(b + 0x24, &v32, 4);
		v32 = htobe32(f->length);
		memcpy(b + 0x2c, &v32, 4);
		if (opcode >= 13) {
			b[0x36] = f->vendor;
			b[0x37] = f->status;
		}
		v32 = htobe32((uint32_t)last_mlx5_opcode << 24 | f->qpn);
		memcpy(b + 0x38, &v32, 4);
		v16 = htobe16(f->index);
		memcpy(b + 0x3c, &v16, 2);
		b[0x3f] = opcode << 4 | (lap & 1);
		break;
	}
	case P_BNXT:
		v32 = htole32(f->index);
		memcpy(b + 8, &v32, 4);
		v32 = htole32((~lap & 1) | (f->opcode > 0 ? f->opcode : 0) << 1 | f->status << 8);
		memcpy(b + 24, &v32, 4);
		break;
	default:
		v32 = htobe32(f->index);
		memcpy(b + 4, &v32, 4);
		v64 = 0;
		memcpy(b + 16, &v64, 8);
		v32 = htobe32(f->status);
		memcpy(b + 24, &v32, 4);
		v32 = htobe32(f->qpn << 8 | (f->opcode > 0 ? f->opcode : 2) << 5 |
			      (f->status ? 2 : 0) | (~lap & 1));
		memcpy(b + 28, &v32, 4);
		break;
	}
}

/* What a device reports for "everything up to the last posted WQE is done". */
static uint32_t last_cqe_index(void)
{
	switch (fk_cfg.provider) {
	case P_MLX5:
		return last_index & 0xffff;
	case P_BNXT:
		return sq_posted;
	default:
		return sq_posted & 0xffffff;
	}
}

static void complete_quietly(void)
{
	static struct ibv_wc wc[MAX_WC];
	struct cqe_fields f = { .index = last_cqe_index(), .qpn = qp->qp_num, .opcode = -1 };
	uint8_t b[64];
	int n;

	if (sq_signaled_upto != sq_posted)
		die("cannot complete: the last posted work request is unsignaled");
	make_cqe(b, &f);
	store_cqe(b, cqe_size());
	n = ibv_poll_cq(cq, MAX_WC, wc);
	if (n < 0)
		die("complete: ibv_poll_cq failed (%d)", n);
	for (int i = 0; i < n; i++)
		if (wc[i].status)
			die("complete: the queue pair is in error (status %d)", wc[i].status);
	outstanding = 0;
	clear_doorbells();
}

static void print_wcs(const uint8_t *cqe, const struct ibv_wc *wc, int n)
{
	print_head("cqe");
	printf(",\"cqe\":\"");
	hex(cqe, cqe_size());
	printf("\",\"poll_rc\":%d,\"wc\":[", n);
	for (int i = 0; i < n; i++) {
		printf("%s{\"wr_id\":%llu,\"status\":%d,\"status_str\":\"%s\",\"vendor_err\":%u",
		       i ? "," : "", (unsigned long long)wc[i].wr_id, wc[i].status,
		       ibv_wc_status_str(wc[i].status), wc[i].vendor_err);
		if (!wc[i].status) { /* undefined in error completions */
			printf(",\"opcode\":%d,\"wc_flags\":%u", wc[i].opcode, wc[i].wc_flags);
			if (wc[i].opcode & IBV_WC_RECV)
				printf(",\"byte_len\":%u", wc[i].byte_len);
			if (wc[i].wc_flags & IBV_WC_WITH_IMM)
				printf(",\"imm\":%u", be32toh(wc[i].imm_data));
		}
		printf(",\"qp_num\":%u}", wc[i].qp_num);
	}
	printf("]");
	if (fk.cq_db) {
		printf(",\"cq_dbrec\":\"");
		hex(fk.cq_db, 8);
		printf("\"");
	}
	print_doorbells();
	puts("}");
}

/* ---- OP-SPEC parsing -------------------------------------------------- */

static uint64_t num(const char *key, const char *val)
{
	char *end;
	uint64_t v;

	if (!val || !*val)
		die("%s needs a value", key);
	v = strtoull(val, &end, 0);
	if (*end)
		die("%s=%s: not a number", key, val);
	return v;
}

static void do_cqe(char *args)
{
	static struct ibv_wc wc[MAX_WC];
	struct cqe_fields f = { .index = last_cqe_index(), .qpn = qp->qp_num, .opcode = -1 };
	uint8_t b[64];
	char *tok, *val, *raw = NULL;

	while ((tok = strsep(&args, ","))) {
		val = strchr(tok, '=');
		if (val)
			*val++ = 0;
		if (!*tok)
			continue;
		else if (!strcmp(tok, "hex"))
			raw = val;
		else if (!strcmp(tok, "status"))
			f.status = num(tok, val);
		else if (!strcmp(tok, "index"))
			f.index = num(tok, val);
		else if (!strcmp(tok, "vendor"))
			f.vendor = num(tok, val);
		else if (!strcmp(tok, "opcode"))
			f.opcode = num(tok, val);
		else if (!strcmp(tok, "length"))
			f.length = num(tok, val);
		else if (!strcmp(tok, "imm"))
			f.imm = num(tok, val);
		else
			die("cqe: unknown key '%s'", tok);
	}
	make_cqe(b, &f);
	if (raw) {
		if (strlen(raw) != cqe_size() * 2)
			die("cqe: hex= needs %zu digits", cqe_size() * 2);
		for (size_t i = 0; i < cqe_size(); i++)
			if (sscanf(raw + 2 * i, "%2hhx", &b[i]) != 1)
				die("cqe: bad hex digits");
	}
	store_cqe(b, cqe_size());
	int n = ibv_poll_cq(cq, MAX_WC, wc);

	if (n > 0)
		outstanding -= (uint32_t)n < outstanding ? (uint32_t)n : outstanding;
	print_wcs(b, wc, n);
}

static void parse_spec(struct spec *s, const struct op_name *op, char *args)
{
	char *tok, *val;
	bool atomic = op->opcode == IBV_WR_ATOMIC_CMP_AND_SWP ||
		      op->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD;

	*s = (struct spec){ .op = op, .laddr = BUF_ADDR + 0x1000, .lkey = 0x00aa0103,
			    .raddr = 0x1122334455667700, .rkey = 0xcafebabe, .length = 8,
			    .imm = 0x01020304, .compare = 0x0102030405060708,
			    .swap = 0xf1f2f3f4f5f6f7f8, .add = 0x1112131415161718,
			    .nsge = 1, .repeat = 1, .sig = true, .auto_id = true };
	while ((tok = strsep(&args, ","))) {
		val = strchr(tok, '=');
		if (val)
			*val++ = 0;
		if (!*tok)
			continue;
		else if (!strcmp(tok, "len"))
			s->length = num(tok, val);
		else if (!strcmp(tok, "laddr"))
			s->laddr = num(tok, val);
		else if (!strcmp(tok, "lkey"))
			s->lkey = num(tok, val);
		else if (!strcmp(tok, "raddr"))
			s->raddr = num(tok, val);
		else if (!strcmp(tok, "rkey"))
			s->rkey = num(tok, val);
		else if (!strcmp(tok, "imm"))
			s->imm = num(tok, val);
		else if (!strcmp(tok, "compare"))
			s->compare = num(tok, val);
		else if (!strcmp(tok, "swap"))
			s->swap = num(tok, val);
		else if (!strcmp(tok, "add"))
			s->add = num(tok, val);
		else if (!strcmp(tok, "nsge"))
			s->nsge = num(tok, val);
		else if (!strcmp(tok, "repeat"))
			s->repeat = num(tok, val);
		else if (!strcmp(tok, "sig"))
			s->sig = num(tok, val);
		else if (!strcmp(tok, "wr_id")) {
			s->wr_id = num(tok, val);
			s->auto_id = false;
		} else if (!strcmp(tok, "inline") && !val)
			s->inl = true;
		else if (!strcmp(tok, "fence") && !val)
			s->fence = true;
		else if (!strcmp(tok, "solicited") && !val)
			s->solicited = true;
		else if (!strcmp(tok, "more") && !val)
			s->more = true;
		else
			die("%s: unknown key '%s'", op->name, tok);
	}
	if (atomic && s->length != 8)
		die("%s: atomics are 8 bytes long", op->name);
	if (s->nsge < 1 || s->nsge > MAX_SGE)
		die("%s: nsge is 1..%d", op->name, MAX_SGE);
	if (s->inl && (s->laddr < BUF_ADDR || s->laddr + s->length > BUF_ADDR + BUF_SIZE))
		die("%s: inline data must lie in the buffer at %#llx", op->name, BUF_ADDR);
}

static int fill_sge(const struct spec *s, struct ibv_sge *sge)
{
	uint32_t part = s->length / s->nsge, done = 0;

	for (uint32_t i = 0; i < s->nsge; i++) {
		uint32_t len = i + 1 == s->nsge ? s->length - done : part;

		sge[i] = (struct ibv_sge){ s->laddr + done, len, s->lkey };
		done += len;
	}
	return s->nsge;
}

static void print_inputs(const struct spec *s)
{
	bool first = true;

	printf(",\"op\":\"%s\",\"wr_id\":%llu,\"qpn\":%u", s->op->label,
	       (unsigned long long)s->wr_id, qp->qp_num);
	printf(",\"laddr\":%llu,\"lkey\":%u,\"length\":%u,\"nsge\":%u",
	       (unsigned long long)s->laddr, s->lkey, s->length, s->nsge);
	if (s->op->is_recv)
		return;
	if (s->op->opcode != IBV_WR_SEND && s->op->opcode != IBV_WR_SEND_WITH_IMM)
		printf(",\"raddr\":%llu,\"rkey\":%u", (unsigned long long)s->raddr, s->rkey);
	if (s->op->opcode == IBV_WR_RDMA_WRITE_WITH_IMM || s->op->opcode == IBV_WR_SEND_WITH_IMM)
		printf(",\"imm\":%u", s->imm);
	if (s->op->opcode == IBV_WR_ATOMIC_CMP_AND_SWP)
		printf(",\"compare\":%llu,\"swap\":%llu", (unsigned long long)s->compare,
		       (unsigned long long)s->swap);
	if (s->op->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD)
		printf(",\"add\":%llu", (unsigned long long)s->add);
	printf(",\"flags\":[");
	const struct { bool on; const char *name; } flags[] = {
		{ s->sig, "SIGNALED" }, { s->fence, "FENCE" }, { s->solicited, "SOLICITED" },
		{ s->inl, "INLINE" },
	};
	for (size_t i = 0; i < N_ELEM(flags); i++)
		if (flags[i].on) {
			printf("%s\"%s\"", first ? "" : ",", flags[i].name);
			first = false;
		}
	printf("],\"inline\":%s", s->inl ? "true" : "false");
	if (s->inl) {
		printf(",\"inline_data\":\"");
		hex((const uint8_t *)(uintptr_t)s->laddr, s->length);
		printf("\"");
	}
}

/* ---- posting ---------------------------------------------------------- */

static struct spec chain[MAX_CHAIN];
static int chain_len;

static void fill_wr(struct spec *s, struct ibv_send_wr *wr, struct ibv_sge *sge)
{
	*wr = (struct ibv_send_wr){ .wr_id = s->wr_id, .sg_list = sge,
				    .num_sge = fill_sge(s, sge), .opcode = s->op->opcode };
	wr->send_flags = (s->sig ? IBV_SEND_SIGNALED : 0) | (s->fence ? IBV_SEND_FENCE : 0) |
			 (s->solicited ? IBV_SEND_SOLICITED : 0) | (s->inl ? IBV_SEND_INLINE : 0);
	switch (s->op->opcode) {
	case IBV_WR_RDMA_WRITE_WITH_IMM:
	case IBV_WR_SEND_WITH_IMM:
		wr->imm_data = htobe32(s->imm);
		break;
	default:
		break;
	}
	if (s->op->opcode == IBV_WR_ATOMIC_CMP_AND_SWP || s->op->opcode == IBV_WR_ATOMIC_FETCH_AND_ADD) {
		bool cs = s->op->opcode == IBV_WR_ATOMIC_CMP_AND_SWP;

		wr->wr.atomic.remote_addr = s->raddr;
		wr->wr.atomic.rkey = s->rkey;
		wr->wr.atomic.compare_add = cs ? s->compare : s->add;
		wr->wr.atomic.swap = cs ? s->swap : 0;
	} else if (s->op->opcode != IBV_WR_SEND && s->op->opcode != IBV_WR_SEND_WITH_IMM) {
		wr->wr.rdma.remote_addr = s->raddr;
		wr->wr.rdma.rkey = s->rkey;
	}
}

static uint32_t msn_table_size(void)
{
	uint32_t p = 1, n = fk.bnxt_slots;

	while (p < n)
		p <<= 1;
	return p / 2;
}

static void print_wqe(const struct spec *s, uint32_t idx, uint32_t units, bool last)
{
	print_head("post");
	print_inputs(s);
	printf(",\"rc\":0,\"index\":%u,\"ring_index\":%u,\"ring_size\":%u,\"wqe_number\":%u,\"wqe\":\"",
	       idx, unit_mask(idx), fk.sq_count, sq_posted);
	hex_ring(fk.sq, unit_mask(idx), units, fk.sq_stride, fk.sq_count);
	printf("\",\"wqe_used\":%u", wqe_used_bytes(idx, units));
	if (fk_cfg.provider == P_BNXT && fk.bnxt_slots && !fk_cfg.bnxt_static) {
		uint32_t msn = sq_posted % msn_table_size();

		printf(",\"msn\":{\"index\":%u,\"entry\":\"", msn);
		hex(fk.sq + (size_t)fk.bnxt_slots * 16 + msn * 8, 8);
		printf("\"}");
	}
	if (last && fk.qp_db) {
		printf(",\"dbrec\":\"");
		hex(fk.qp_db, 8);
		printf("\"");
	}
	if (last)
		print_doorbells();
	puts("}");
}

static void flush_chain(bool quiet)
{
	static struct ibv_send_wr wr[MAX_CHAIN];
	static struct ibv_sge sge[MAX_CHAIN][MAX_SGE];
	struct ibv_send_wr *bad = NULL;
	int rc;

	if (!chain_len)
		return;
	if (outstanding + chain_len > depth)
		complete_quietly();
	for (int i = 0; i < chain_len; i++) {
		if (chain[i].auto_id)
			chain[i].wr_id = 1000 + sq_posted + i;
		fill_wr(&chain[i], &wr[i], sge[i]);
		wr[i].next = i + 1 < chain_len ? &wr[i + 1] : NULL;
	}
	clear_doorbells();
	rc = ibv_post_send(qp, wr, &bad);
	if (rc && chain_len > 1)
		die("ibv_post_send: error %d at work request %td", rc, bad - wr);
	if (rc) { /* refused by the provider: that is a result too */
		print_head("post");
		print_inputs(&chain[0]);
		printf(",\"rc\":%d}\n", rc);
		chain_len = 0;
		return;
	}
	for (int i = 0; i < chain_len; i++) {
		uint32_t units = wqe_units(sq_pi);

		if (!quiet)
			print_wqe(&chain[i], sq_pi, units, i + 1 == chain_len);
		last_index = sq_pi;
		last_mlx5_opcode = chain[i].op->mlx5_opcode;
		sq_pi += units;
		sq_posted++;
		outstanding++;
		if (chain[i].sig)
			sq_signaled_upto = sq_posted;
	}
	clear_doorbells();
	chain_len = 0;
}

static void post_recv(struct spec *s)
{
	struct ibv_sge sge[MAX_SGE];
	struct ibv_recv_wr wr = { .sg_list = sge, .num_sge = 1 }, *bad;
	uint32_t units = 1;

	s->nsge = 1;
	if (s->auto_id)
		s->wr_id = 2000 + rq_pi;
	wr.wr_id = s->wr_id;
	fill_sge(s, sge);
	clear_doorbells();
	if (ibv_post_recv(qp, &wr, &bad))
		die("ibv_post_recv failed");
	if (fk_cfg.provider == P_BNXT)
		units = fk.rq[(size_t)rq_pi * 16 + 2];
	print_head("post");
	print_inputs(s);
	printf(",\"index\":%u,\"wqe\":\"", rq_pi);
	if (fk.rq_count)
		hex_ring(fk.rq, rq_pi % fk.rq_count, 1, fk.rq_stride, fk.rq_count);
	else
		hex(fk.rq + (size_t)rq_pi * 16, (size_t)units * 16);
	printf("\"");
	if (fk.qp_db) {
		printf(",\"dbrec\":\"");
		hex(fk.qp_db, 8);
		printf("\"");
	}
	print_doorbells();
	puts("}");
	rq_pi += units;
}

static void run_spec(const char *text)
{
	char *copy = strdup(text), *args = copy, *name = strsep(&args, ",");
	const struct op_name *op = NULL;
	struct spec s;

	if (!strncmp(name, "skip=", 5)) {
		uint32_t n = num("skip", name + 5);
		char none[] = "";

		flush_chain(false);
		for (uint32_t i = 0; i < n; i++) {
			parse_spec(&chain[0], &op_names[0], none);
			chain_len = 1;
			flush_chain(true);
		}
	} else if (!strcmp(name, "complete")) {
		flush_chain(false);
		complete_quietly();
	} else if (!strcmp(name, "cqe")) {
		flush_chain(false);
		do_cqe(args);
	} else {
		for (size_t i = 0; i < N_OPS; i++)
			if (!strcmp(name, op_names[i].name))
				op = &op_names[i];
		if (!op)
			die("unknown operation '%s'", name);
		parse_spec(&s, op, args);
		for (uint32_t i = 0; i < s.repeat; i++) {
			if (op->is_recv) {
				flush_chain(false);
				post_recv(&s);
				continue;
			}
			if (chain_len == MAX_CHAIN)
				die("more than %d chained work requests", MAX_CHAIN);
			chain[chain_len++] = s;
			if (!s.more)
				flush_chain(false);
		}
	}
	free(copy);
}

/* ---- set-up ----------------------------------------------------------- */

static bool match_any(void *sysfs_dev)
{
	return true;
}

static const struct provider_ops *find_provider(const char *name)
{
	if (!strcmp(name, "mlx5")) {
		fk_cfg.provider = P_MLX5;
		return &verbs_provider_mlx5;
	}
	if (!strcmp(name, "bnxt_re")) {
		fk_cfg.provider = P_BNXT;
		return &verbs_provider_bnxt_re;
	}
#ifdef HAVE_IONIC
	if (!strcmp(name, "ionic")) {
		fk_cfg.provider = P_IONIC;
		return &verbs_provider_ionic;
	}
#endif
	die("provider '%s' is not in this build (rdma-core %s)", name, RDMA_CORE_VERSION);
	return NULL;
}

static void setup_qp(uint32_t cq_depth, uint32_t psn, int mtu, uint32_t max_sge)
{
	struct ibv_device **list;
	struct ibv_context *ctx;
	struct ibv_pd *pd;
	struct ibv_qp_attr a = { .qp_state = IBV_QPS_INIT, .port_num = 1, .qp_access_flags = 15 };
	struct ibv_qp_init_attr ia = { .qp_type = IBV_QPT_RC };
	int n = 0, e;

	list = ibv_get_device_list(&n);
	if (!list || !n)
		die("no device: fake sysfs was not accepted");
	ctx = ibv_open_device(list[0]);
	if (!ctx)
		die("ibv_open_device: %s", strerror(errno));
	pd = ibv_alloc_pd(ctx);
	cq = pd ? ibv_create_cq(ctx, cq_depth, NULL, NULL, 0) : NULL;
	if (!cq)
		die("ibv_alloc_pd or ibv_create_cq: %s", strerror(errno));
	ia.send_cq = ia.recv_cq = cq;
	ia.cap = (struct ibv_qp_cap){ .max_send_wr = depth, .max_recv_wr = 16,
				      .max_send_sge = max_sge, .max_recv_sge = 1,
				      .max_inline_data = max_inline };
	qp = ibv_create_qp(pd, &ia);
	if (!qp)
		die("ibv_create_qp: %s", strerror(errno));
	e = ibv_modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_PKEY_INDEX | IBV_QP_PORT |
					  IBV_QP_ACCESS_FLAGS);
	a = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTR, .dest_qp_num = 0x4321, .rq_psn = 0x100,
				  .ah_attr.port_num = 1 };
	a.path_mtu = mtu == 256 ? IBV_MTU_256 : mtu == 512 ? IBV_MTU_512 :
		     mtu == 1024 ? IBV_MTU_1024 : mtu == 2048 ? IBV_MTU_2048 : IBV_MTU_4096;
	e |= ibv_modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_PATH_MTU | IBV_QP_DEST_QPN | IBV_QP_RQ_PSN |
					   IBV_QP_AV | IBV_QP_MAX_DEST_RD_ATOMIC |
					   IBV_QP_MIN_RNR_TIMER);
	a = (struct ibv_qp_attr){ .qp_state = IBV_QPS_RTS, .sq_psn = psn, .timeout = 14 };
	e |= ibv_modify_qp(qp, &a, IBV_QP_STATE | IBV_QP_SQ_PSN | IBV_QP_TIMEOUT | IBV_QP_RETRY_CNT |
					   IBV_QP_RNR_RETRY | IBV_QP_MAX_QP_RD_ATOMIC);
	if (e)
		die("ibv_modify_qp failed");
	if (fk_cfg.provider == P_BNXT && !fk.sq_count) /* rdma-core 44: not told by the ABI */
		fk.sq_count = 8 * depth * 2;
}

static void usage(FILE *f)
{
	fputs("usage: oracle [--qpn N] [--depth N] [--cq-depth N] [--psn N] [--mtu N] [--max-inline N]\n"
	      "              [--max-sge N] [--no-bf] [--bnxt-static] [--ionic-v1] [--verbose]\n"
	      "              mlx5|bnxt_re|ionic OP-SPEC...\n", f);
}

int main(int argc, char **argv)
{
	enum { O_QPN = 1, O_DEPTH, O_CQ, O_PSN, O_MTU, O_INL, O_SGE, O_NOBF, O_STATIC, O_V1, O_VERB };
	static const struct option opts[] = {
		{ "qpn", 1, NULL, O_QPN },	   { "depth", 1, NULL, O_DEPTH },
		{ "cq-depth", 1, NULL, O_CQ },	   { "psn", 1, NULL, O_PSN },
		{ "mtu", 1, NULL, O_MTU },	   { "max-inline", 1, NULL, O_INL },
		{ "max-sge", 1, NULL, O_SGE },	   { "no-bf", 0, NULL, O_NOBF },
		{ "bnxt-static", 0, NULL, O_STATIC }, { "ionic-v1", 0, NULL, O_V1 },
		{ "verbose", 0, NULL, O_VERB },	   { "help", 0, NULL, 'h' }, { 0 },
	};
	uint32_t cq_depth = 64, psn = 0x200, mtu = 4096, max_sge = 2;
	struct provider_ops ops;
	uint8_t *buf;
	int c;

	fk_cfg.qpn = 0x1234;
	while ((c = getopt_long(argc, argv, "+h", opts, NULL)) != -1) {
		uint32_t v = optarg ? num("option", optarg) : 0;

		switch (c) {
		case O_QPN: fk_cfg.qpn = v; break;
		case O_DEPTH: depth = v; break;
		case O_CQ: cq_depth = v; break;
		case O_PSN: psn = v; break;
		case O_MTU: mtu = v; break;
		case O_INL: max_inline = v; break;
		case O_SGE: max_sge = v; break;
		case O_NOBF: setenv("MLX5_SHUT_UP_BF", "1", 1); break;
		case O_STATIC: fk_cfg.bnxt_static = 1; break;
		case O_V1: fk_cfg.ionic_v1 = 1; break;
		case O_VERB: fk_cfg.verbose = 1; break;
		case 'h': usage(stdout); return 0;
		default: usage(stderr); return 2;
		}
	}
	if (argc - optind < 2) {
		usage(stderr);
		return 2;
	}
	provider_name = argv[optind++];
	ops = *find_provider(provider_name);
#ifndef BNXT_HAS_SLOTS
	fk_cfg.bnxt_static = 1;
#endif
	setenv("MLX5_SCATTER_TO_CQE", "0", 1);
	buf = mmap((void *)(uintptr_t)BUF_ADDR, BUF_SIZE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (buf == MAP_FAILED)
		die("cannot map the data buffer: %s", strerror(errno));
	for (uint32_t i = 0; i < BUF_SIZE; i++)
		buf[i] = 0x41 + i % 61;
	setvbuf(stdout, NULL, _IOLBF, 0);
	sysfs_create();
	ops.match_device = match_any;
	REGISTER_DRIVER(&ops);
	setup_qp(cq_depth, psn, mtu, max_sge);
	clear_doorbells();
	for (; optind < argc; optind++)
		run_spec(argv[optind]);
	flush_chain(false);
	return 0;
}
