/* Where LeakSanitizer does not look: the loader's table of a thread's variables in each library
 * (glibc's DTV). The main thread's lies in memory that the loader made before there was a malloc,
 * and it alone points to the variables of libraries that were opened later, as drivers are. A
 * suppression would have to name the loader, and to LeakSanitizer that is the name of a program
 * which it was told to start (.sysroot/run), too: all of the program's leaks would go with it. */
#ifndef DRIVER_LEAKS_H
#define DRIVER_LEAKS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
/* LeakSanitizer's, where the program has it. */
__attribute__((weak)) void __lsan_register_root_region(const void* begin, size_t size);
#ifdef __cplusplus
}
#endif

/* Once, on the main thread, before a driver is opened. */
static inline void driver_leaks_show(void) {
#if defined(__x86_64__) && defined(__GLIBC__)
  /* A slot is 16 bytes; the one before the first says how many there are. */
  const uintptr_t* table;
  __asm__("movq %%fs:8, %0" : "=r"(table));
  if (__lsan_register_root_region) __lsan_register_root_region(table, 16 * (table[-2] + 1));
#endif
}

#endif /* DRIVER_LEAKS_H */
