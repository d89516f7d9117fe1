/* What a kernel's spec says, for people and for counting: its shape in a few words, and how large its buffers are. */
#ifndef ADWP_KERNELS_DESCRIBE_H
#define ADWP_KERNELS_DESCRIBE_H

#include "kernels/family.h"

/* Adds a spec in words that tell a family's kernels apart: "16x32x32 k3 s2", channels, height and width first. Nothing for a spec
 * that has no more to say than its family's name. */
void family_describe(Family family, const void *spec, Text *out);

/* Elements that the kernel can touch of its buffer `name` at B, views of channels inside a concatenation counted as what they
 * are; 0: the spec does not say, it is all of the buffer. */
int64_t family_elements(Family family, const void *spec, const char *name, int64_t batch);

#endif
