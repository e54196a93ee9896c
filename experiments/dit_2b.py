"""Text to video with 2 billion parameters, laid out for TPU v5p:4x4x4.

Check: sora compile --experiment dit_2b:p720 --topology v5p:4x4x4
       (720p, 256 rows x 75,776 tokens in 4 parts: 29.9 of 95 GiB a chip, 59 s predicted)
Run:   sora train --experiment dit_2b --data SET --stage dit --workdir RUN
"""

from experiments._transformers import layout

experiment = layout("2b", "p256", fsdp=64)
p480 = layout("2b", "p480", fsdp=64)
p720 = layout("2b", "p720", fsdp=32, context=2)
p1080 = layout("2b", "p1080", fsdp=16, context=4)
