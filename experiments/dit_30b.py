"""Text to video with 30 billion parameters, laid out for TPU v5p:8x8x16.

Check: sora compile --experiment dit_30b:p720_context_4 --topology v5p:8x8x16 \\
           --shape_class 256x75776
       (720p, 256 rows x 75,776 tokens: 43.2 of 95 GiB a chip, 35.5 s predicted)
Run:   sora train --experiment dit_30b --data SET --stage dit --workdir RUN
"""

from experiments._transformers import layout

experiment = layout("30b", "p256", fsdp=1024)
p480 = layout("30b", "p480", fsdp=256, context=4)
p720 = layout("30b", "p720", fsdp=128, context=8)
p720_context_4 = layout("30b", "p720", fsdp=256, context=4)  # too few for clips of 10 s
p1080 = layout("30b", "p1080", fsdp=64, context=16)
