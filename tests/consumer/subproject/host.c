#include <hadal/hadal.h>
#include <stdio.h>

int main(void) {
  printf("%u\n", (unsigned)hadal_version());
  return 0;
}
