"""Text to video with 400 million parameters, laid out for TPU v5p:2x4x4.

Check: sora compile --experiment dit_400m:p720 --topology v5p:2x4x4
       (720p, 128 rows x 75,776 tokens in 4 parts: 11.9 of 95 GiB a chip, 21 s predicted)
Run:   sora train --experiment dit_400m --data SET --stage dit --workdir RUN
"""

from experiments._transformers import layout

experiment = layout("400m", "p256", fsdp=32)
p480 = layout("400m", "p480", fsdp=32)
p720 = layout("400m", "p720", fsdp=16, context=2)
p1080 = layout("400m", "p1080", fsdp=8, context=4)
