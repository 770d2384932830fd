/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Samples: of which sockets the events are emitted. User space asks for a sample here only if nothing
 * but its outputs uses the events: detection, metrics and others see all sockets.
 */
#ifndef TCPSHIFT_SAMPLE_H
#define TCPSHIFT_SAMPLE_H

#include "kernel.h"

#include <bpf/bpf_helpers.h>
#include "config.h"
#include "counters.h"
#include "transition.h"

/*
 * Whether the socket with this cookie is one of about sample_n. internal/selection chooses by the
 * same hash, which is the last step of MurmurHash3. Cookies have a fixed step, and the two ends of a
 * connection have neighbouring ones: hash64() would not choose these independently.
 */
static __always_inline bool is_cookie_in_sample(__u64 cookie)
{
	__u64 hash = cookie;

	if (!sample_n)
		return true;
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
	return (hash ^ hash >> 33) % sample_n == 0;
}

/*
 * Whether the sample leaves out the socket of the transition, whose cookie and role are known. If so,
 * counts the transition. Listeners are in every sample.
 */
static __always_inline bool leave_out_of_sample(const struct transition *t,
						struct program_counters *counters)
{
	const struct event_ctx *ec = t->ec;

	if (!sample_n || ec->role == ROLE_LISTENER || is_cookie_in_sample(ec->cookie))
		return false;
	count(counters->unsampled);
	if (wants_end_event(t))
		count(counters->unsampled_ends);
	return true;
}

#endif
