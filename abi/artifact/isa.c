/* What a CPU lacks of the level that an artifact is made for. Follows the table of features,
 * RT_X86_64 and RT_AARCH64, which Rust programs check as well. */

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(__x86_64__)
/* A bit of ECX as CPUID gives it for a leaf. */
static bool rt_cpuid(unsigned leaf, int bit) {
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(leaf, &eax, &ebx, &ecx, &edx) && (ecx >> bit & 1);
}
#elif defined(__aarch64__)
static bool rt_hwcap(unsigned long bit) {
    return getauxval(AT_HWCAP) & bit;
}
#endif

/* The first feature of a level that this CPU, or its system, lacks, or NULL. */
static const char *rt_missing_isa(uint32_t level) {
#define RT_NEEDS(from, name, present) \
    if (level >= (from) && !(present)) return name;
#if defined(__x86_64__)
    __builtin_cpu_init();
    RT_X86_64(RT_NEEDS)
#elif defined(__aarch64__)
    RT_AARCH64(RT_NEEDS)
#endif
#undef RT_NEEDS
    return NULL;
}

