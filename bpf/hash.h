/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Hashes of addresses and ids. */
#ifndef TCPSHIFT_HASH_H
#define TCPSHIFT_HASH_H

#include "kernel.h"

#define HASH_PRIME 0x9e3779b97f4a7c15 /* 2^64 divided by the golden ratio */

/* Hashes value to that many bits. Fibonacci hashing spreads values that differ by a fixed step. */
static __always_inline __u32 hash64(__u64 value, int bits)
{
	return value * HASH_PRIME >> (64 - bits);
}

#endif
