"""Text to video with 5 billion parameters, laid out for TPU v5p:4x4x4, or v6e:16x16 where said.

Check: sora compile --experiment dit_5b:p720 --topology v5p:4x4x4
       sora compile --experiment dit_5b:p1080_16x16 --topology v6e:16x16
       (1080p, 32 rows x 131,072 tokens: 12.7 of 32 GiB a chip, 8.5 s predicted)
Run:   sora train --experiment dit_5b --data SET --stage dit --workdir RUN
"""

from experiments._transformers import layout

experiment = layout("5b", "p256", fsdp=64)
p480 = layout("5b", "p480", fsdp=32, context=2)
p720 = layout("5b", "p720", fsdp=16, context=4)
p1080 = layout("5b", "p1080", fsdp=8, context=8)
p1080_16x16 = layout("5b", "p1080", fsdp=32, context=8, cell=16)  # v6e:16x16
