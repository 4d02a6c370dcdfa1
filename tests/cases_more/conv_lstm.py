# SPDX-License-Identifier: Apache-2.0
import torch
import torch.nn as nn
import torch.nn.functional as F

CASE = dict(
 id='conv_lstm', verdict='WARN', culprit_op='lstm',
 source_url='https://github.com/apple/coremltools/issues/1780',
 expect='converts as one op, which runs on the CPU only')
class M(nn.Module):
    def __init__(self):
        super().__init__(); self.r = nn.LSTM(8, 16, batch_first=True)
    def forward(self, x): return self.r(x)[0]
def build(): torch.manual_seed(0); return M().eval()
def inputs():
    torch.manual_seed(0); return (torch.randn(1, 6, 8),)
